-- One block per catalogue: `-- <catalogue> [since <major>] [for superusers]`, then a query of
--   oid, kind, name, schema (null where there is none), owner, grants, what grants are on (as acldefault() has it),
--   state, relation (the table it belongs to; 0 if to none).
-- Names need not be quoted: they are compared and read, never run.

-- pg_class
SELECT o.oid,
       CASE o.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'sequence' END,
       n.nspname || '.' || o.relname, n.nspname, o.relowner, o.relacl, CASE o.relkind WHEN 'S' THEN 's' ELSE 'r' END,
       concat_ws('; ',
           CASE o.relpersistence WHEN 'u' THEN 'unlogged' END,
           CASE WHEN o.relrowsecurity THEN 'row security' END,
           CASE WHEN o.relforcerowsecurity THEN 'row security forced' END,
           CASE WHEN o.relkind IN ('r', 'p') THEN CASE o.relreplident WHEN 'n' THEN 'replica identity nothing'
                WHEN 'f' THEN 'replica identity full' END END,
           'in tablespace ' || coalesce((
               SELECT spcname FROM pg_tablespace WHERE oid = o.reltablespace AND spcname <> 'pg_default'), 'of the database'),
           'options ' || (SELECT string_agg(x, ', ' ORDER BY x COLLATE "C") FROM unnest(o.reloptions) AS x)),
       -- A sequence of a column belongs to the column's table.
       coalesce((SELECT s.refobjid FROM pg_depend s
                  WHERE o.relkind = 'S' AND s.classid = 'pg_class'::regclass AND s.objid = o.oid
                    AND s.refclassid = 'pg_class'::regclass AND s.deptype IN ('a', 'i') LIMIT 1), o.oid)
  FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
 WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S');

-- pg_class
-- An invalid index is not dumped, and is named as not covered. A partitioned one is valid when all partitions have theirs,
-- which is not always so after a restore: foreign tables have none.
SELECT o.oid, 'index', n.nspname || '.' || o.relname, n.nspname, NULL, NULL, NULL,
       concat_ws('; ',
           CASE WHEN o.relkind = 'I' THEN 'partitioned' ELSE 'valid' END,
           CASE WHEN i.indisprimary THEN 'primary' END, CASE WHEN i.indisunique THEN 'unique' END,
           CASE WHEN i.indisclustered THEN 'clustered' END, CASE WHEN i.indisreplident THEN 'replica identity' END,
           'in tablespace ' || coalesce((
               SELECT spcname FROM pg_tablespace WHERE oid = o.reltablespace AND spcname <> 'pg_default'), 'of the database'),
           'options ' || (SELECT string_agg(x, ', ' ORDER BY x COLLATE "C") FROM unnest(o.reloptions) AS x)),
       i.indrelid
  FROM pg_class o JOIN pg_index i ON i.indexrelid = o.oid JOIN pg_namespace n ON n.oid = o.relnamespace
 WHERE i.indisvalid OR o.relkind = 'I';

-- pg_constraint
-- Those that a foreign key to a partitioned table has for each partition get names of their own in a copy. Those of an
-- extension's domain are the extension's business, as those of its tables.
SELECT o.oid, 'constraint',
       o.conname || ' on ' || CASE WHEN o.conrelid <> 0 THEN o.conrelid::regclass::text ELSE o.contypid::regtype::text END,
       n.nspname, NULL, NULL, NULL,
       -- One that is inherited is made with its parent's, as valid as that.
       concat_ws('; ', CASE WHEN o.coninhcount = 0 THEN CASE WHEN o.convalidated THEN 'valid' ELSE 'not valid' END END,
           CASE WHEN o.condeferrable THEN 'deferrable' END, CASE WHEN o.condeferred THEN 'deferred' END),
       o.conrelid
  FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace
 WHERE o.contype <> 't' AND (o.contype <> 'f' OR o.conparentid = 0)
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.classid = 'pg_type'::regclass AND d.objid = o.contypid);

-- pg_trigger
-- A partition's own is made with that of the partitioned table, and called like it.
SELECT o.oid, 'trigger',
       coalesce((SELECT p.tgname FROM pg_trigger p WHERE p.oid = o.tgparentid), o.tgname) || ' on ' || n.nspname || '.' || c.relname, n.nspname, NULL, NULL, NULL,
       CASE o.tgenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'enabled in replicas'
            ELSE 'always enabled' END,
       o.tgrelid
  FROM pg_trigger o JOIN pg_class c ON c.oid = o.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT o.tgisinternal;

-- pg_rewrite
SELECT o.oid, 'rule', o.rulename || ' on ' || n.nspname || '.' || c.relname, n.nspname, NULL, NULL, NULL,
       CASE o.ev_enabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'enabled in replicas'
            ELSE 'always enabled' END,
       o.ev_class
  FROM pg_rewrite o JOIN pg_class c ON c.oid = o.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE o.rulename <> '_RETURN';

-- pg_policy
SELECT o.oid, 'policy', o.polname || ' on ' || n.nspname || '.' || c.relname, n.nspname, NULL, NULL, NULL,
       CASE WHEN o.polpermissive THEN 'permissive' ELSE 'restrictive' END || '; command ' || o.polcmd::text || '; to '
           || (SELECT string_agg(name, ', ' ORDER BY name)
                 FROM (SELECT coalesce(r.rolname, 'PUBLIC') COLLATE "C"
                         FROM unnest(o.polroles) AS role LEFT JOIN pg_roles r ON r.oid = role) AS r(name)),
       o.polrelid
  FROM pg_policy o JOIN pg_class c ON c.oid = o.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace;

-- pg_statistic_ext
SELECT o.oid, 'statistics', n.nspname || '.' || o.stxname, n.nspname, o.stxowner, NULL, NULL,
       'kinds ' || o.stxkind::text || '; target ' || coalesce(o.stxstattarget, -1), o.stxrelid
  FROM pg_statistic_ext o JOIN pg_namespace n ON n.oid = o.stxnamespace;

-- pg_proc
SELECT o.oid,
       CASE o.prokind WHEN 'f' THEN 'function' WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate'
            ELSE 'window function' END,
       n.nspname || '.' || o.proname || '(' || pg_get_function_identity_arguments(o.oid) || ')', n.nspname, o.proowner,
       o.proacl, 'f', CASE WHEN o.prosecdef THEN 'security definer' END, 0
  FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace;

-- pg_type
SELECT o.oid,
       CASE o.typtype WHEN 'b' THEN 'type' WHEN 'c' THEN 'composite type' WHEN 'd' THEN 'domain' WHEN 'e' THEN 'enum'
            ELSE 'range type' END,
       n.nspname || '.' || o.typname, n.nspname, o.typowner, o.typacl, 'T', NULL, 0
  FROM pg_type o JOIN pg_namespace n ON n.oid = o.typnamespace
 WHERE o.typtype IN ('b', 'c', 'd', 'e', 'r') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = o.oid)
   AND (o.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = o.typrelid AND c.relkind = 'c'));

-- pg_operator
SELECT o.oid, 'operator',
       n.nspname || '.' || o.oprname || ' (' || CASE o.oprleft WHEN 0 THEN '' ELSE o.oprleft::regtype::text END || ', '
           || o.oprright::regtype::text || ')',
       n.nspname, o.oprowner, NULL, NULL, NULL, 0
  FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace;

-- pg_opclass
SELECT o.oid, 'operator class', n.nspname || '.' || o.opcname || ' for ' || m.amname, n.nspname, o.opcowner, NULL, NULL,
       NULL, 0
  FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod;

-- pg_opfamily
SELECT o.oid, 'operator family', n.nspname || '.' || o.opfname || ' for ' || m.amname, n.nspname, o.opfowner, NULL, NULL,
       NULL, 0
  FROM pg_opfamily o JOIN pg_namespace n ON n.oid = o.opfnamespace JOIN pg_am m ON m.oid = o.opfmethod;

-- pg_collation
SELECT o.oid, 'collation', n.nspname || '.' || o.collname, n.nspname, o.collowner, NULL, NULL,
       'provider ' || o.collprovider::text || CASE WHEN o.collisdeterministic THEN '' ELSE '; not deterministic' END, 0
  FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace;

-- pg_conversion
SELECT o.oid, 'conversion', n.nspname || '.' || o.conname, n.nspname, o.conowner, NULL, NULL,
       CASE WHEN o.condefault THEN 'default' END, 0
  FROM pg_conversion o JOIN pg_namespace n ON n.oid = o.connamespace;

-- pg_ts_config
SELECT o.oid, 'text search configuration', n.nspname || '.' || o.cfgname, n.nspname, o.cfgowner, NULL, NULL, NULL, 0
  FROM pg_ts_config o JOIN pg_namespace n ON n.oid = o.cfgnamespace;

-- pg_ts_dict
SELECT o.oid, 'text search dictionary', n.nspname || '.' || o.dictname, n.nspname, o.dictowner, NULL, NULL, NULL, 0
  FROM pg_ts_dict o JOIN pg_namespace n ON n.oid = o.dictnamespace;

-- pg_namespace
SELECT o.oid, 'schema', o.nspname, o.nspname, o.nspowner, o.nspacl, 'n', NULL, 0 FROM pg_namespace o;

-- pg_event_trigger
SELECT o.oid, 'event trigger', o.evtname, NULL, o.evtowner, NULL, NULL,
       CASE o.evtenabled WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'enabled in replicas'
            ELSE 'always enabled' END || ' on ' || o.evtevent,
       0
  FROM pg_event_trigger o;

-- pg_publication
SELECT o.oid, 'publication', o.pubname, NULL, o.pubowner, NULL, NULL,
       concat_ws('; ', CASE WHEN o.puballtables THEN 'all tables' END, CASE WHEN o.pubinsert THEN 'insert' END,
           CASE WHEN o.pubupdate THEN 'update' END, CASE WHEN o.pubdelete THEN 'delete' END,
           CASE WHEN o.pubtruncate THEN 'truncate' END),
       0
  FROM pg_publication o;

-- pg_publication_rel
SELECT o.oid, 'publication of table', p.pubname || ': ' || n.nspname || '.' || c.relname, n.nspname, NULL, NULL, NULL,
       'published', o.prrelid
  FROM pg_publication_rel o JOIN pg_publication p ON p.oid = o.prpubid JOIN pg_class c ON c.oid = o.prrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace;

-- pg_publication_namespace since 15
SELECT o.oid, 'publication of schema', p.pubname || ': ' || n.nspname, n.nspname, NULL, NULL, NULL, 'published', 0
  FROM pg_publication_namespace o JOIN pg_publication p ON p.oid = o.pnpubid JOIN pg_namespace n ON n.oid = o.pnnspid;

-- pg_subscription for superusers
-- Only a superuser's dump has them. They arrive disabled, so whether they were enabled is not compared.
SELECT o.oid, 'subscription', o.subname, NULL, o.subowner, NULL, NULL, NULL, 0
  FROM pg_subscription o
 WHERE o.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database());

-- pg_language
SELECT o.oid, 'language', o.lanname, NULL, o.lanowner, o.lanacl, 'l', CASE WHEN o.lanpltrusted THEN 'trusted' END, 0
  FROM pg_language o;

-- pg_foreign_data_wrapper
SELECT o.oid, 'foreign data wrapper', o.fdwname, NULL, o.fdwowner, o.fdwacl, 'F', NULL, 0 FROM pg_foreign_data_wrapper o;

-- pg_foreign_server
SELECT o.oid, 'foreign server', o.srvname, NULL, o.srvowner, o.srvacl, 'S', NULL, 0 FROM pg_foreign_server o;

-- pg_cast
-- That of a range to its multirange comes and goes with the range.
SELECT o.oid, 'cast', o.castsource::regtype || ' to ' || o.casttarget::regtype, NULL, NULL, NULL, NULL,
       'context ' || o.castcontext::text || '; method ' || o.castmethod::text, 0
  FROM pg_cast o
 WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'i' AND d.classid = 'pg_cast'::regclass AND d.objid = o.oid);

-- pg_default_acl
SELECT o.oid, 'default privileges',
       (SELECT r.rolname FROM pg_roles r WHERE r.oid = o.defaclrole) || ' on ' || o.defaclobjtype::text || coalesce(' in ' || n.nspname, ''), n.nspname,
       o.defaclrole, o.defaclacl, 'r', NULL, 0
  FROM pg_default_acl o LEFT JOIN pg_namespace n ON n.oid = o.defaclnamespace;
