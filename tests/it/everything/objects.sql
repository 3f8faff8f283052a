-- Kinds of objects that few databases have, and dumps forget.
create schema objects;
set search_path = objects, public;
create extension postgres_fdw schema public;
create extension file_fdw schema public;
create extension btree_gist schema public;
create extension tsm_system_rows schema public;
create extension pg_trgm schema public;
create extension unaccent schema public;

-- A base type from nothing, with operators of its own.
create type word;
create function word_in(cstring) returns word language internal immutable strict as 'int8in';
create function word_out(word) returns cstring language internal immutable strict as 'int8out';
create type word (input = word_in, output = word_out, internallength = 8, passedbyvalue, alignment = double,
    category = 'N', preferred = false, default = '42', delimiter = ';');
create function word_eq(word, word) returns boolean language internal immutable strict as 'int8eq';
create function word_lt(word, word) returns boolean language internal immutable strict as 'int8lt';
create function word_le(word, word) returns boolean language internal immutable strict as 'int8le';
create function word_gt(word, word) returns boolean language internal immutable strict as 'int8gt';
create function word_ge(word, word) returns boolean language internal immutable strict as 'int8ge';
create function word_cmp(word, word) returns int language internal immutable strict as 'btint8cmp';
create operator === (leftarg = word, rightarg = word, function = word_eq, commutator = ===, restrict = eqsel, join = eqjoinsel, hashes, merges);
create operator << (leftarg = word, rightarg = word, function = word_lt, commutator = >>, negator = >>=);
create operator >> (leftarg = word, rightarg = word, function = word_gt, commutator = <<, negator = <<=);
create operator <<= (leftarg = word, rightarg = word, function = word_le, commutator = >>=, negator = >>);
create operator >>= (leftarg = word, rightarg = word, function = word_ge, commutator = <<=, negator = <<);
create function half(word) returns word language internal immutable strict as 'int8up';
create operator !!! (rightarg = word, function = half);
create operator family word_family using btree;
create operator class word_ops default for type word using btree family word_family as
    operator 1 <<, operator 2 <<=, operator 3 ===, operator 4 >>=, operator 5 >>, function 1 word_cmp(word, word);
create operator class word_other for type word using btree as
    operator 1 <<, operator 2 <<=, operator 3 ===, operator 4 >>=, operator 5 >>, function 1 word_cmp(word, word);
create operator family loose_family using hash;
alter operator family word_family using btree add function 2 (word, word) btint8sortsupport(internal);
create type shell;
create table words (id word primary key, other word default '7');
insert into words values ('1', default), ('-5', '9'), ('9223372036854775807', null);
create index words_other on words (other word_other);

create cast (word as bigint) without function as implicit;
create cast (bigint as word) without function as assignment;
create function to_word(text) returns word language sql immutable strict as 'select $1::bigint::objects.word';
create cast (text as word) with function to_word(text);
create cast (word as jsonb) with inout;

create collation german_phonebook (provider = icu, locale = 'de-u-co-phonebk');
create collation ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create collation of_libc (provider = libc, lc_collate = 'de_DE.utf8', lc_ctype = 'C.UTF-8');
create collation copied from "C";
create table collated (a text collate german_phonebook primary key, b text collate ignoring_case unique, c text collate of_libc);
insert into collated values ('Ärger', 'Strasse', 'ä'), ('Az', 'weg', 'Z');
create index collated_c on collated (c);
create index collated_other on collated (a collate of_libc);
create domain collated_domain as text collate ignoring_case;
create conversion own_conversion for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create default conversion own_default for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;

create text search parser own_parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, headline = prsd_headline, lextypes = prsd_lextype);
create text search template own_template (init = dsimple_init, lexize = dsimple_lexize);
create text search dictionary own_dictionary (template = own_template, stopwords = 'german', accept = false);
create text search dictionary own_snowball (template = snowball, language = 'german', stopwords = 'german');
create text search configuration own_configuration (parser = own_parser);
alter text search configuration own_configuration add mapping for asciiword, word with own_dictionary, public.unaccent, own_snowball;
alter text search configuration own_configuration add mapping for email with simple;
create table searched (id int, a text, b tsvector generated always as (to_tsvector('objects.own_configuration', a)) stored);
insert into searched values (1, 'Die Häuser sind groß'), (2, 'a@b.de');
create index searched_expression on searched using gin (to_tsvector('objects.own_configuration', a));
create index searched_trigrams on searched using gist (a gist_trgm_ops (siglen = 32));

create foreign data wrapper own_wrapper handler postgres_fdw_handler validator postgres_fdw_validator;
create foreign data wrapper without_handler options (debug 'true');
create server elsewhere type 'a type' version '1.0' foreign data wrapper postgres_fdw
    options (host 'elsewhere.example.org', dbname 'it''s', port '1');
create server files foreign data wrapper file_fdw;
create user mapping for current_user server elsewhere options (user 'me', password 'it''s secret');
create user mapping for public server elsewhere options (user 'others');
create foreign table remote (id int options (column_name 'ID') not null, note text collate "C" default 'x', constraint positive check (id > 0))
    server elsewhere options (schema_name 'a b', table_name 'c''d');
create table parent_of_remote (id int, note text) partition by range (id);
create table local_part partition of parent_of_remote for values from (0) to (10);
create foreign table remote_part partition of parent_of_remote for values from (10) to (20) server elsewhere;
insert into parent_of_remote values (1, 'local');
create materialized view remote_view as select * from remote with no data;

create table measured (a int, b int, c text, d int);
insert into measured select n % 10, n % 5, 'x' || n, n from generate_series(1, 1000) n;
create statistics measured_all on a, b, d from measured;
create statistics measured_dependencies (dependencies) on a, b from measured;
create statistics measured_distinct (ndistinct) on a, b, c from measured;
create statistics measured_mcv (mcv) on a, b from measured;
create statistics measured_expression on (a + b), lower(c), d from measured;
create statistics measured_one on (a * 2) from measured;
alter statistics measured_mcv set statistics 123;
analyze measured;

create publication of_tables for table measured (a, b) where (a > 3 and b is not null), only words, collated
    with (publish = 'insert, truncate', publish_via_partition_root = true);
create publication of_schema for tables in schema objects;
create publication of_all for all tables with (publish = 'delete');
create publication of_nothing;
create subscription subscribed connection 'host=127.0.0.1 port=1 dbname=none password=x' publication a, "B b"
    with (connect = false, slot_name = none, binary = true, streaming = true, synchronous_commit = 'remote_apply', disable_on_error = true);
create subscription enabled connection 'host=127.0.0.1 port=1 dbname=none' publication a with (connect = false, slot_name = 'slot');
alter subscription enabled enable;

create access method own_heap type table handler heap_tableam_handler;
create access method own_btree type index handler bthandler;
create table of_own_heap (id int) using own_heap;
insert into of_own_heap select generate_series(1, 10);
create function own_handler() returns language_handler language c as '$libdir/plpgsql', 'plpgsql_call_handler';
create function own_inline_handler(internal) returns void language c strict as '$libdir/plpgsql', 'plpgsql_inline_handler';
create function own_validator(oid) returns void language c strict as '$libdir/plpgsql', 'plpgsql_validator';
create trusted language own_language handler own_handler inline own_inline_handler validator own_validator;
create function in_own_language() returns int language own_language as 'begin return 1; end';

select lo_from_bytea(1001, ''), lo_from_bytea(1002, E'\\x00ff5c0a0d'), lo_from_bytea(1003, repeat('large object', 1000000)::bytea),
       lo_from_bytea(4294967295, 'the last');
select lo_put(lo_create(1004), 5000000, 'after a hole');
comment on large object 1002 is 'A large object';

comment on type word is 'A base type';
comment on operator === (word, word) is 'An operator';
comment on operator !!! (none, word) is 'A prefix operator';
comment on operator class word_ops using btree is 'An operator class';
comment on operator family word_family using btree is 'An operator family';
comment on cast (word as bigint) is 'A cast';
comment on collation german_phonebook is 'A collation';
comment on conversion own_conversion is 'A conversion';
comment on text search parser own_parser is 'A parser';
comment on text search template own_template is 'A template';
comment on text search dictionary own_dictionary is 'A dictionary';
comment on text search configuration own_configuration is 'A configuration';
comment on foreign data wrapper own_wrapper is 'A wrapper';
comment on server elsewhere is 'A server';
comment on foreign table remote is 'A foreign table';
comment on column remote.id is 'A foreign column';
comment on statistics measured_all is 'Statistics';
comment on publication of_tables is 'A publication';
comment on subscription subscribed is 'A subscription';
comment on access method own_heap is 'An access method';
comment on language own_language is 'A language';
comment on extension pg_trgm is 'Another comment than its own';
comment on domain collated_domain is 'A domain';
do $$begin execute format('comment on database %I is %L', current_database(), E'A database\nwith ''quotes'''); end$$;
reset search_path;
