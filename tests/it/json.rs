//! The contracts of what other programs read: JSON Schemas in `docs`, and the real outputs held against them.

use std::path::Path;

use serde_json::Value;

use crate::shop::{Shop, overwrite};

pub(crate) fn schema(name: &str) -> jsonschema::Validator {
    schema_with(name, &[])
}

/// A schema that refers to others beside it.
pub(crate) fn schema_with(name: &str, others: &[&str]) -> jsonschema::Validator {
    let schema = read_schema(name);
    let mut registry = jsonschema::Registry::new();
    for other in others {
        let resource = jsonschema::Resource::from_contents(read_schema(other));
        registry = registry.add(format!("json-schema:///{other}"), resource).unwrap();
    }
    let registry = registry.prepare().unwrap();
    jsonschema::options()
        .with_registry(&registry)
        .build(&schema)
        .unwrap()
}

fn read_schema(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    assert_strict(&schema, name);
    schema
}

/// Every object of a schema names all its fields, requires them, and allows no others.
fn assert_strict(schema: &Value, place: &str) {
    match schema {
        Value::Object(fields) => {
            if schema["type"] == "object" && fields.contains_key("properties") {
                assert_eq!(schema["additionalProperties"], false, "{place}");
                let properties = schema["properties"].as_object().unwrap();
                let required = schema["required"].as_array().unwrap();
                assert_eq!(properties.len(), required.len(), "{place}");
                assert!(
                    required
                        .iter()
                        .all(|name| properties.contains_key(name.as_str().unwrap())),
                    "{place}"
                );
            }
            for (name, inner) in fields {
                assert_strict(inner, &format!("{place}/{name}"));
            }
        }
        Value::Array(parts) => parts.iter().for_each(|inner| assert_strict(inner, place)),
        _ => {}
    }
}

#[track_caller]
pub(crate) fn assert_fits(validator: &jsonschema::Validator, value: &Value) {
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}\n{value:#}");
}

/// Each field in turn is taken away: the schema, which requires them all, must refuse what is left.
fn assert_no_field_can_be_missing(validator: &jsonschema::Validator, value: &Value) {
    for name in value.as_object().unwrap().keys() {
        let mut less = value.clone();
        less.as_object_mut().unwrap().remove(name);
        assert!(!validator.is_valid(&less), "{name} can be missing");
    }
    let mut more = value.clone();
    more["unheard_of"] = 1.into();
    assert!(!validator.is_valid(&more));
}

#[test]
fn restore_tests_that_passed_failed_or_could_not_run_hold_every_field_of_the_contract() {
    let validator = schema("restore-test.schema.json");
    let shop = Shop::open();
    let nothing = shop.restore_test();
    assert_eq!(
        nothing.code(),
        1,
        "there is no repository yet: {}",
        nothing.stderr
    );
    let id = shop.backup();
    let passed = shop
        .ernstfall()
        .tables("[[target.check]]\nname = \"one\"\nsql = \"select 1\"\nexpect = \"= 1\"")
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(passed["verdict"], "passed");
    assert_fits(&validator, &passed);
    assert_no_field_can_be_missing(&validator, &passed);
    let unknown = shop
        .ernstfall()
        .run([
            "restore-test",
            "shop",
            "--backup",
            "20000101T000000Z-0000",
            "--json",
        ])
        .expect_code(1)
        .json();
    assert_eq!(
        (&unknown["verdict"], &unknown["backup"]),
        (&"could-not-run".into(), &Value::Null)
    );
    assert_fits(&validator, &unknown);
    let file = shop.object_file(&shop.manifest(&id)["data"][0]);
    overwrite(&file, b"damaged");
    let failed = shop.restore_test().expect_code(3).json();
    assert_eq!(failed["verdict"], "failed");
    assert_fits(&validator, &failed);
    let listed = shop
        .ernstfall()
        .run(["list", "restore-tests", "--json"])
        .expect_code(0)
        .json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed, &[nothing.json(), passed, unknown, failed]);
}

#[test]
fn a_mismatch_in_the_record_fits_the_contract() {
    let validator = schema("restore-test.schema.json");
    let shop = Shop::open();
    shop.database.execute("create unlogged table fleeting (id int)");
    shop.backup();
    let running = shop.paused_before_comparison();
    shop.copy().execute("delete from customers where id > 40 and id not in (select customer from orders); drop view open_orders");
    running.resume();
    let record = running.wait().expect_code(3).json();
    assert!(
        !record["verification"]["mismatches"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_fits(&validator, &record);
}

#[test]
fn status_holds_every_field_of_the_contract_before_and_after_a_backup() {
    let validator = schema("status.schema.json");
    let shop = Shop::open();
    let id = shop.backup();
    let untested = shop.status().expect_code(1).json();
    assert_fits(&validator, &untested);
    assert_no_field_can_be_missing(&validator, &untested);
    assert_eq!(untested["last_restore_test"], Value::Null);
    shop.restore_test().expect_code(0);
    let good = shop.status().expect_code(0).json();
    assert_eq!(
        (&good["ok"], &good["proven_backup"]),
        (&true.into(), &id.as_str().into())
    );
    assert_fits(&validator, &good);
    std::fs::remove_file(shop.object_file(&shop.manifest(&id)["data"][0])).unwrap();
    shop.restore_test().expect_code(3);
    let bad = shop.status().expect_code(3).json();
    assert_fits(&validator, &bad);
    std::fs::remove_file(shop.manifest_file(&id)).unwrap();
    assert_fits(&validator, &shop.status().expect_code(1).json());
}

#[test]
fn the_manifest_holds_every_field_of_the_contract_and_no_name_of_the_content() {
    let validator = schema("manifest.schema.json");
    let shop = Shop::open();
    let id = shop.backup();
    let manifest = shop.manifest(&id);
    assert_fits(&validator, &manifest);
    assert_no_field_can_be_missing(&validator, &manifest);
    let text = manifest.to_string();
    for name in ["customers", "orders", "shop_owner", "clerk", "invoice_numbers"] {
        assert!(!text.contains(name), "{name} in {text}");
    }
    let listed = shop
        .ernstfall()
        .run(["list", "backups", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(listed.as_array().unwrap(), &[manifest]);
}

#[test]
fn one_target_named_gives_an_object_and_all_targets_an_array() {
    let shop = Shop::open();
    shop.backup();
    for command in ["restore-test", "status"] {
        let one = shop.ernstfall().run([command, "shop", "--json"]);
        assert!(one.json().is_object(), "{}", one.stdout);
        let all = shop.ernstfall().run([command, "--json"]);
        let all = all.json();
        let all = all.as_array().expect("an array");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["target"], "shop");
    }
    let two = shop
        .ernstfall()
        .target("bank", &shop.database.url())
        .run(["restore-test", "shop", "bank", "--json"])
        .expect_code(1)
        .json();
    let verdicts: Vec<&Value> = two
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["verdict"])
        .collect();
    assert_eq!(verdicts, ["passed", "could-not-run"]);
}
