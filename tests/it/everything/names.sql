-- Names of any spelling, for everything that has one.
do $do$
declare
    names text[] := array[
        'with "quotes"', 'with ''quote''', E'new\nline', E'tab\tand return\r', 'per%cent %s', 'back\slash \n \.', '../../etc/passwd',
        ' ', 'UPPER', 'select', '$1', '$$', 'dot.dot', 'äöü ß €', '日本語', '😀', repeat('n', 63), repeat('ü', 31), '--', '/* */',
        '-', ';', 'null', '*', '?', '{a,b}', '[x]', 'a|b', '@', '#', '.', '..', '/', ':v', ':''v''', '~', '!', E'\x01\x7f', 'user',
        'ﬀ', 'e' || U&'\0301', U&'\200F' || 'rtl', 'information_schema', 'Drop table "x";', '<a href="x">&amp;</a>'];
    name text; number int := 0; schema text; column_name text;
begin
    foreach name in array names loop
        number := number + 1;
        schema := left(name, 20) || ' schema';
        column_name := case when name = ' ' then '  ' else name end;
        execute format('create schema %I', schema);
        execute format('create role %I', name || left(' role', 63 - octet_length(name)));
        execute format('create table %I.%I (%I int primary key default 1, "second" text constraint %I check (length("second") > 0))',
            schema, name, column_name, name);
        execute format('insert into %I.%I values (%s, %L)', schema, name, number, name);
        execute format('create index %I on %I.%I ("second")', left(name, 20) || ' index', schema, name);
        execute format('create sequence %I.%I start %s', schema, left(name, 20) || ' sequence', number);
        execute format('select nextval(%L::regclass)', format('%I.%I', schema, left(name, 20) || ' sequence'));
        execute format('create table %I.%I (id int generated always as identity, %I serial)', schema, left(name, 20) || ' identity', name);
        execute format('insert into %I.%I default values', schema, left(name, 20) || ' identity');
        execute format('create function %I.%I(%I int) returns int language sql as %L', schema, name, name, 'select 1');
        execute format('create view %I.%I as select %I, "second" as %I from %I.%I', schema, left(name, 20) || ' view', column_name,
            left(name, 20) || ' alias', schema, name);
        execute format('create materialized view %I.%I as select * from %I.%I', schema, left(name, 20) || ' kept', schema,
            left(name, 20) || ' view');
        execute format('create type %I.%I as enum (%L)', schema, left(name, 20) || ' enum', left(name, 20));
        execute format('create domain %I.%I as int constraint %I check (value > 0)', schema, left(name, 20) || ' domain', name);
        execute format('create trigger %I before update on %I.%I for each row execute function suppress_redundant_updates_trigger(%L)',
            name, schema, name, name);
        execute format('create policy %I on %I.%I using (true)', name, schema, name);
        execute format('create rule %I as on delete to %I.%I do instead nothing', name, schema, name);
        execute format('create statistics %I.%I on %I, "second" from %I.%I', schema, left(name, 20) || ' statistics', column_name, schema, name);
        execute format('create publication %I for table %I.%I', name, schema, name);
        execute format('create collation %I.%I from "C"', schema, name);
        execute format('alter table %I.%I owner to %I', schema, name, name || left(' role', 63 - octet_length(name)));
        execute format('grant select on %I.%I to %I', schema, left(name, 20) || ' view', name || left(' role', 63 - octet_length(name)));
        execute format('comment on table %I.%I is %L', schema, name, name);
        execute format('comment on column %I.%I.%I is %L', schema, name, column_name, name);
    end loop;
end$do$;
