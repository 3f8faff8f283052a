//! What `init` writes.

use super::*;

#[test]
fn what_init_writes_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ernstfall.toml");
    let public = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".to_owned();
    let key = InitKey {
        public: public.clone(),
        file: PathBuf::from("age.key"),
    };
    for (url, encryption) in [
        (SecretSource::Env("SHOP_URL".to_owned()), None),
        (
            SecretSource::Text(Secret::new("postgres://me:a\"b\\c{target}\n@db/shop")),
            Some(key.clone()),
        ),
        (
            SecretSource::Command(vec!["pass".to_owned(), "shop db".to_owned()]),
            Some(key),
        ),
    ] {
        let answers = InitAnswers {
            target: "shop".parse::<TargetName>().unwrap(),
            url: url.clone(),
            repository: "/srv/backups".to_owned(),
            state_dir: Some(PathBuf::from("/srv/state")),
            bin_dir: None,
            encryption: encryption.clone(),
        };
        let text = template(&answers);
        std::fs::write(&file, &text).unwrap();
        let config = Config::load(&file, &environment()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.state_dir, PathBuf::from("/srv/state"));
        assert_eq!(config.target("shop").unwrap().url, url);
        let read = config
            .encryption
            .map(|found| (found.recipients.unwrap().to_texts(), found.identity));
        let identity = SecretSource::File(directory.path().join("age.key"));
        assert_eq!(read, encryption.map(|_| (vec![public.clone()], Some(identity))));
        parse(&uncommented(&text)).unwrap_or_else(|error| panic!("{error}"));
    }
}
