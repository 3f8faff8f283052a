-- One block per catalogue: `-- <catalogue> [since <major>]`, then a query of
--   the object (catalogue, oid, column or 0), what it hangs on (catalogue, oid; of a member: itself), and what is told
--   of it: an array of `label: value`, null where there is nothing to tell.
-- Several blocks may tell of the same object. Text that somebody wrote is told by its hash alone.

-- pg_depend
-- The members. An owner is told where it is another than the extension's: a copy has other owners throughout.
SELECT m.classid, m.objid, 0, m.classid, m.objid,
       ARRAY[(SELECT 'owner: ' || pg_get_userbyid(s.refobjid) FROM pg_shdepend s
               WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND s.classid = m.classid AND s.objid = m.objid AND s.objsubid = 0 AND s.deptype = 'o'
                 AND s.refobjid <> (SELECT extowner FROM pg_extension WHERE oid = m.refobjid))]
  FROM pg_depend m WHERE m.deptype = 'e';

-- pg_class
SELECT 'pg_class'::regclass, o.oid, 0, 'pg_class'::regclass, o.oid,
       ARRAY['persistence: ' || o.relpersistence::text,
           CASE WHEN o.relrowsecurity THEN 'row security: on' END,
           CASE WHEN o.relforcerowsecurity THEN 'forced row security: on' END,
           'replica identity: ' || o.relreplident::text,
           (SELECT 'index of the replica identity: ' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = o.oid AND i.indisreplident),
           (SELECT 'clustering: ' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = o.oid AND i.indisclustered),
           (SELECT 'tablespace: ' || spcname FROM pg_tablespace WHERE oid = o.reltablespace),
           'options: ' || (SELECT string_agg(x, ', ' ORDER BY x COLLATE "C") FROM unnest(o.reloptions) AS x),
           'parents: ' || (SELECT string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
                             FROM pg_inherits i WHERE i.inhrelid = o.oid),
           CASE WHEN o.relkind IN ('v', 'm') THEN 'query: ' || md5(pg_get_viewdef(o.oid)) END,
           (SELECT 'foreign options: ' || md5(f.ftoptions::text) FROM pg_foreign_table f WHERE f.ftrelid = o.oid),
           (SELECT 'sequence: ' || concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
                                             s.seqcache, s.seqcycle)
              FROM pg_sequence s WHERE s.seqrelid = o.oid)]
  FROM pg_class o WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S');

-- pg_attribute
-- The columns of a composite type hang on the type. Servers may note something of their own among the options: users
-- set only those of n_distinct.
SELECT 'pg_class'::regclass, o.attrelid, o.attnum,
       CASE c.relkind WHEN 'c' THEN 'pg_type'::regclass ELSE 'pg_class'::regclass END,
       CASE c.relkind WHEN 'c' THEN c.reltype ELSE c.oid END,
       ARRAY['type: ' || format_type(o.atttypid, o.atttypmod),
           (SELECT 'collation: ' || n.nspname || '.' || l.collname FROM pg_collation l
              JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = o.attcollation),
           CASE WHEN o.attnotnull THEN 'not null: yes' END,
           (SELECT 'default: ' || md5(pg_get_expr(d.adbin, d.adrelid)) FROM pg_attrdef d
             WHERE d.adrelid = o.attrelid AND d.adnum = o.attnum),
           'identity: ' || nullif(o.attidentity::text, ''), 'generated: ' || nullif(o.attgenerated::text, ''),
           'storage: ' || o.attstorage::text, 'statistics target: ' || nullif(o.attstattarget, -1),
           'options: ' || (SELECT string_agg(x, ', ' ORDER BY x COLLATE "C") FROM unnest(o.attoptions) AS x
                            WHERE x ~ '^n_distinct')]
  FROM pg_attribute o JOIN pg_class c ON c.oid = o.attrelid
 WHERE o.attnum > 0 AND NOT o.attisdropped AND c.relkind IN ('r', 'p', 'f', 'c');

-- pg_attribute since 14
SELECT 'pg_class'::regclass, o.attrelid, o.attnum, 'pg_class'::regclass, o.attrelid,
       ARRAY['compression: ' || nullif(o.attcompression::text, '')]
  FROM pg_attribute o JOIN pg_class c ON c.oid = o.attrelid
 WHERE o.attnum > 0 AND NOT o.attisdropped AND c.relkind IN ('r', 'p', 'f');

-- pg_index
-- Without those of constraints, which tell of them; an invalid one is named as not covered in any case.
SELECT 'pg_class'::regclass, o.indexrelid, 0, 'pg_class'::regclass, o.indrelid,
       ARRAY['definition: ' || md5(pg_get_indexdef(o.indexrelid)),
           (SELECT 'tablespace: ' || t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
             WHERE c.oid = o.indexrelid)]
  FROM pg_index o
 WHERE o.indisvalid AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = o.indexrelid AND c.contype IN ('p', 'u', 'x'));

-- pg_constraint
-- Triggers tell of their constraints, and columns of being not null.
SELECT 'pg_constraint'::regclass, o.oid, 0,
       CASE o.conrelid WHEN 0 THEN 'pg_type'::regclass ELSE 'pg_class'::regclass END,
       CASE o.conrelid WHEN 0 THEN o.contypid ELSE o.conrelid END,
       ARRAY['definition: ' || md5(pg_get_constraintdef(o.oid))]
  FROM pg_constraint o WHERE o.contype NOT IN ('t', 'n') AND o.conparentid = 0;

-- pg_trigger
SELECT 'pg_trigger'::regclass, o.oid, 0, 'pg_class'::regclass, o.tgrelid,
       ARRAY['definition: ' || md5(pg_get_triggerdef(o.oid)), 'enabled: ' || o.tgenabled::text]
  FROM pg_trigger o WHERE NOT o.tgisinternal;

-- pg_rewrite
SELECT 'pg_rewrite'::regclass, o.oid, 0, 'pg_class'::regclass, o.ev_class,
       ARRAY['definition: ' || md5(pg_get_ruledef(o.oid)), 'enabled: ' || o.ev_enabled::text]
  FROM pg_rewrite o WHERE o.rulename <> '_RETURN';

-- pg_policy
SELECT 'pg_policy'::regclass, o.oid, 0, 'pg_class'::regclass, o.polrelid,
       ARRAY['definition: ' || concat_ws(' ', o.polcmd::text, o.polpermissive, md5(pg_get_expr(o.polqual, o.polrelid)),
                                         md5(pg_get_expr(o.polwithcheck, o.polrelid))),
           'roles: ' || (SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(role)::text END, ', ' ORDER BY
                                           CASE role WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(role)::text END COLLATE "C")
                           FROM unnest(o.polroles) AS role)]
  FROM pg_policy o;

-- pg_statistic_ext
SELECT 'pg_statistic_ext'::regclass, o.oid, 0, 'pg_class'::regclass, o.stxrelid,
       ARRAY['definition: ' || md5(pg_get_statisticsobjdef(o.oid)), 'statistics target: ' || nullif(o.stxstattarget, -1)]
  FROM pg_statistic_ext o;

-- pg_publication_rel
SELECT 'pg_publication_rel'::regclass, o.oid, 0, 'pg_class'::regclass, o.prrelid, ARRAY[NULL::text]
  FROM pg_publication_rel o;

-- pg_proc
SELECT 'pg_proc'::regclass, o.oid, 0, 'pg_proc'::regclass, o.oid,
       ARRAY['definition: ' || md5(pg_get_functiondef(o.oid))]
  FROM pg_proc o WHERE o.prokind <> 'a';

-- pg_aggregate
SELECT 'pg_proc'::regclass, o.aggfnoid::oid, 0, 'pg_proc'::regclass, o.aggfnoid::oid,
       ARRAY['definition: ' || concat_ws(' ', o.aggtransfn, o.aggfinalfn, o.aggcombinefn, o.aggserialfn, o.aggdeserialfn,
                                         o.aggtranstype::regtype, md5(o.agginitval))]
  FROM pg_aggregate o;

-- pg_type
SELECT 'pg_type'::regclass, o.oid, 0, 'pg_type'::regclass, o.oid,
       ARRAY['values: ' || (SELECT md5(string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder))
                              FROM pg_enum e WHERE e.enumtypid = o.oid),
           'default: ' || md5(o.typdefault), CASE WHEN o.typnotnull THEN 'not null: yes' END]
  FROM pg_type o;

-- pg_operator
SELECT 'pg_operator'::regclass, o.oid, 0, 'pg_operator'::regclass, o.oid,
       ARRAY['definition: ' || concat_ws(' ', o.oprcode, o.oprrest, o.oprjoin, o.oprcanhash, o.oprcanmerge)]
  FROM pg_operator o;

-- pg_amop
SELECT 'pg_amop'::regclass, o.oid, 0, 'pg_opfamily'::regclass, o.amopfamily, ARRAY['operator: ' || o.amopopr::regoperator]
  FROM pg_amop o;

-- pg_amproc
SELECT 'pg_amproc'::regclass, o.oid, 0, 'pg_opfamily'::regclass, o.amprocfamily,
       ARRAY['function: ' || o.amproc::oid::regprocedure]
  FROM pg_amproc o;

-- pg_ts_config
SELECT 'pg_ts_config'::regclass, o.oid, 0, 'pg_ts_config'::regclass, o.oid,
       ARRAY['dictionaries: ' || (SELECT md5(string_agg(concat_ws(' ', m.maptokentype, m.mapdict::regdictionary), ','
                                                       ORDER BY m.maptokentype, m.mapseqno))
                                    FROM pg_ts_config_map m WHERE m.mapcfg = o.oid)]
  FROM pg_ts_config o;

-- pg_ts_dict
SELECT 'pg_ts_dict'::regclass, o.oid, 0, 'pg_ts_dict'::regclass, o.oid, ARRAY['options: ' || md5(o.dictinitoption)]
  FROM pg_ts_dict o;

-- pg_foreign_data_wrapper
SELECT 'pg_foreign_data_wrapper'::regclass, o.oid, 0, 'pg_foreign_data_wrapper'::regclass, o.oid,
       ARRAY['options: ' || md5(o.fdwoptions::text), 'handler: ' || nullif(o.fdwhandler, 0)::regprocedure,
           'validator: ' || nullif(o.fdwvalidator, 0)::regprocedure]
  FROM pg_foreign_data_wrapper o;

-- pg_foreign_server
SELECT 'pg_foreign_server'::regclass, o.oid, 0, 'pg_foreign_server'::regclass, o.oid,
       ARRAY['options: ' || md5(o.srvoptions::text), 'version: ' || o.srvversion]
  FROM pg_foreign_server o;

-- pg_user_mapping
-- Their options are not for everybody to read: a mapping is told by its name alone.
SELECT 'pg_user_mapping'::regclass, o.umid, 0, 'pg_foreign_server'::regclass, o.srvid, ARRAY[NULL::text]
  FROM pg_user_mappings o;

-- pg_event_trigger
SELECT 'pg_event_trigger'::regclass, o.oid, 0, 'pg_event_trigger'::regclass, o.oid,
       ARRAY['enabled: ' || o.evtenabled::text]
  FROM pg_event_trigger o;
