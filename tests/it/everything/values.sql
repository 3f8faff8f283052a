-- Values of every type, and every text that means something to COPY.
create schema "values";
set search_path = "values", public;
create extension hstore schema public;
create extension citext schema public;
create extension ltree schema public;
create extension cube schema public;
create extension isn schema public;

create table integers (a smallint, b int, c bigint, d numeric, e oid, f money);
insert into integers values
    (-32768, -2147483648, -9223372036854775808, 'NaN', 0, '-92233720368547758.08'),
    (32767, 2147483647, 9223372036854775807, 'Infinity', 4294967295, '92233720368547758.07'),
    (0, 0, 0, '-Infinity', 1, '0'), (null, null, null, null, null, null);
create table numerics (a numeric, b numeric(10, 3), c numeric(5, -2), d numeric(3, 5));
insert into numerics values
    (0, -0.0, 0, 0), (1e-300, 1234567.891, 99900, 0.00999), (1.10, 1.1, 100, 0), (1.1000, null, null, null),
    (repeat('9', 2000)::numeric, -9999999.999, -12300, -0.00123), (('0.' || repeat('0', 100) || '1')::numeric, 0, 0, 0);
create table floats (a real, b double precision);
insert into floats values
    ('NaN', 'NaN'), ('Infinity', '-Infinity'), ('-0', '-0'), (0, 0), (0.1, 0.1), (1e-45, 5e-324),
    (3.4028235e38, 1.7976931348623157e308), (1.0000001, 1.0000000000000002), (0.1::real + 0.2::real, 0.1::float8 + 0.2);

create table times (a date, b timestamp, c timestamptz, d time, e timetz, f interval);
insert into times values
    ('infinity', '-infinity', 'infinity', '24:00:00', '24:00:00-1559', '0'),
    ('-infinity', 'infinity', '-infinity', '00:00:00.000001', '00:00:00+1559', '-178000000 years'),
    ('4713-01-01 BC', '4714-11-24 00:00:00 BC', '4714-11-24 00:00:00+00 BC', '12:00', '12:00+05:30', '1 mon -1 day 1 us'),
    ('5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '23:59:59.999999',
     '23:59:59.999999+02', '-1 year 2 mons -3 days 04:05:06.789'),
    ('0001-01-01', '0001-01-01 BC', '1883-11-18 12:03:58 America/New_York', '1:2:3', '1:2:3 UTC', '178956970 years 7 months');
create table intervals (a interval year to month, b interval day to second(2), c timestamp(0), d time(3));
insert into intervals values ('1-2', '3 04:05:06.789', '2026-01-01 12:00:00.6', '12:00:00.12345');

create table arrays (a int[], b text[], c int[][], d timestamptz[], e numeric[], f text[3][3]);
insert into arrays values
    ('{}', '{}', '{}', '{}', '{}', '{}'),
    ('{1,NULL,3}', '{NULL,"NULL","","a,b","{}","\\","\"",null}', '{{1,2},{3,4}}', '{infinity,NULL}', '{NaN,-0.0}', '{{a},{b}}'),
    ('[-2:0]={1,2,3}', '[0:1]={x,y}', '[2:3][-1:0]={{1,2},{3,NULL}}', null, null, '[5:5]={"\\."}'),
    (array_fill(7, array[1000]), array[E'tab\there', E'line\nhere', E'\\N'], '{{{1}}}', null, null, null);
create table ranges (a int4range, b int8range, c numrange, d tsrange, e tstzrange, f daterange,
    g int4multirange, h nummultirange, i tstzmultirange, j datemultirange);
insert into ranges values
    ('empty', '(,)', '[1.5,2.50)', '[2026-01-01,infinity]', '(,2026-01-01 00:00+02]', '[2026-01-01,2026-01-01]',
     '{}', '{[1,2),(3,)}', '{(,infinity)}', '{[2026-01-01,2026-02-01),[2027-01-01,)}'),
    ('[1,10]', '(1,10)', '(NaN,NaN]', '(,)', 'empty', '(-infinity,infinity)', '{[1,3],[2,9],[20,30)}', '{empty}', '{}', '{(,)}');
create type float_range as range (subtype = float8, subtype_diff = float8mi, multirange_type_name = float_ranges);
create table own_ranges (a float_range, b float_ranges);
insert into own_ranges values ('[-0,1.5]', '{[1,2],[3,Infinity)}'), ('(,)', '{}'), ('[NaN,NaN]', null);

create table documents (a json, b jsonb, c xml, d jsonpath);
insert into documents values
    (E'{"b" : 1,\n "a":\t[1.0, 1e2, "\\u00e4\\n\\\\"], "a": null}', '{"b": 1.0, "a": [1e2, "\u00e4\\n", {}], "big": 123456789012345678901234567890.5}',
     '<a b="1">ä &amp; <!-- c --><![CDATA[ <x> ]]></a>', '$.a[*] ? (@.b > 1 && @.c like_regex "^x")'),
    ('"only text"', '"only text"', 'only <b>content</b>', 'strict $'), ('null', 'null', '<?xml version="1.0"?><doc/>', null), ('[]', '[]', '', null);

create table bits (a bit(5), b bit varying, c bytea, d boolean, e uuid, f "char", g name, h char(5), i varchar(3));
insert into bits values
    ('10101', '', '', true, '00000000-0000-0000-0000-000000000000', 'x', 'a name', 'ab', 'abc'),
    ('00000', '1111111111111111111111111', '\x00ff5c5c2e0a0d09', false, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '', '', '', ''),
    (null, null, (select decode(string_agg(lpad(to_hex(n), 2, '0'), '' order by n), 'hex') from generate_series(0, 255) n),
     null, null, E'\\', repeat('n', 63)::name, '     ', ' ');
insert into bits (f) select n::"char" from generate_series(-128, 127) n;

create table network (a inet, b cidr, c macaddr, d macaddr8);
insert into network values
    ('192.168.1.5/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05'),
    ('::1', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00:00:00'), ('::ffff:1.2.3.4/96', '0.0.0.0/0', null, null);
create table geometry (a point, b line, c lseg, d box, e path, f polygon, g circle);
insert into geometry values
    ('(1,2)', '{1,-1,0}', '[(0,0),(1,1)]', '(2,2),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,2),3>'),
    ('(NaN,Infinity)', '{0.1,0.2,0.3}', '[(1e-300,-0),(0,0)]', '(Infinity,1),(0,-Infinity)', '((0,0),(0.1,0.2))', '((0,0))', '<(0,0),0>');
create table searching (a tsvector, b tsquery, c hstore, d citext, e ltree, f lquery, g ltxtquery, h cube, i isbn13);
insert into searching values
    ('a:1A b:2B,3 ''it''''s'':16383', '(a & !b) | c:*AB <-> ''x y''', 'a=>1, "b c"=>NULL, "NULL"=>"NULL", ""=>"\\"', 'CaSe',
     'Top.Science.Astronomy', 'Top.*{1,2}.!a|b@', 'a & b*', '(1,2),(3,4)', '978-0-393-04002-9'),
    ('', null, '', '', '', '*', 'x', '(0)', null);

create table of_the_system (a regclass, b regproc, c regprocedure, d regoper, e regoperator, f regtype, g regrole,
    h regnamespace, i regconfig, j regdictionary, k regcollation, l pg_lsn, m txid_snapshot, n pg_snapshot, o xid8,
    p tid, q xid, r cid, s oidvector, t int2vector, u refcursor, v aclitem, w regclass[]);
create index of_the_system_index on of_the_system (a);
insert into of_the_system values
    ('of_the_system', 'now', 'abs(int)', '*<>', '+(int,int)', 'int[]', 'postgres', '"values"', 'german', 'simple', 'pg_catalog."C"',
     '16/B374D848', '10:20:10,14,15', '10:20:10,14,15', '18446744073709551615', '(4294967295,65535)', '4294967295', '7',
     '1 2 3', '1 2 3', 'cursor', 'postgres=arw*/postgres', '{of_the_system_index,pg_class}'),
    ('of_the_system_index', '-', '-', '0', '0', '-', '-', '-', '-', '-', '-', '0/0', '1:1:', '1:1:', '0', '(0,0)', '3', '0', '', '', '', null, '{}');

create type mood as enum ('sad', 'Ok', 'it''s "great"', E'two\nlines', '');
alter type mood add value 'before ok' before 'Ok';
alter type mood rename value 'sad' to 'blue';
create domain positive as int default 5 constraint over_zero check (value > 0);
create domain short_text as text collate "C" not null check (length(value) < 10);
create domain of_domain as positive check (value < 100);
create domain numbers as int[] check (array_length(value, 1) < 5);
create domain not_validated as int;
create table of_not_validated (a not_validated);
insert into of_not_validated values (-1);
alter domain not_validated add constraint later check (value > 0) not valid;
create type pair as (a int, gone text, b text);
alter type pair drop attribute gone;
alter type pair add attribute c mood;
create type nested as (p pair, ps pair[], d of_domain);
create table of_own (a mood, b positive, c short_text, d of_domain, e pair, f nested, g pair[], h numbers, i mood[]);
insert into of_own values
    ('blue', 1, 'x', 7, '(1,"a,b",Ok)', '("(1,,)","{""(2,\\""q\\"",blue)""}",9)', '{"(1,2,)",NULL}', '{1,NULL}', '{Ok,""}'),
    (E'two\nlines', null, E'\t', null, row(null, null, null)::pair, null, '{}', '{}', '{"two
lines"}'),
    ('', default, '', 99, null, row(null, null, null), null, null, null);

create table texts (id serial primary key, a text, b text);
-- Every character of one byte but NUL, at the beginning, in the middle and at the end.
insert into texts (a, b) select chr(n), 'x' || chr(n) || 'y' || chr(n) from generate_series(1, 127) n;
insert into texts (a, b) values
    (E'\\N', E'\\.'), (E'\\.\n', E'\n\\.\n'), (E'\\\\', E'\\'), (E'a\r\nb', E'\r'), ('', null), (null, ''), ('NULL', 'null'),
    (E'\\x41', E'\\101'), (E'\ttab\t', E' space '), ('"quoted"', ',comma;'), ('$1 $$ $a$', '%s %d %'), ('end\', '-- no comment'),
    (U&'\00e4\20ac\+01F600\0301', U&'\FEFF\FFFE\200F\2028\+10FFFF'), (repeat(E'\\\t\n', 10000), repeat('ä', 100000));
-- One row of 64 MiB, which does not compress.
create table big (id int, content bytea);
alter table big alter content set storage external;
insert into big select 1, decode(string_agg(md5(n::text), ''), 'hex') from generate_series(1, 4194304) n;
insert into big values (2, '');
reset search_path;
