-- Everything that runs, and that must not run in a copy.
create schema code;
set search_path = code;

create extension plperl;
create extension plperlu;
create extension plpython3u;

create table log (line text);
create table watched (id int primary key, note text, twice int);

create function in_sql(a int, b int default 2, variadic c int[] default '{}') returns int
    language sql immutable strict parallel safe leakproof cost 7 as $$select a + b + coalesce(array_length(c, 1), 0)$$;
create function atomic(a int) returns setof watched begin atomic select * from watched where id > a; select * from watched; end;
create procedure atomic_procedure(inout a int) begin atomic insert into log values ('atomic'); select a + 1; end;
create function returning_sql(text) returns text return upper($1) || 'x';
create function plpgsql_function(inout a int, out b text, c anyelement) returns record language plpgsql security definer
    set search_path = code, pg_temp set work_mem = '3MB' set datestyle from current as $body$
begin
    -- A comment with $$ and 'quotes' and \backslash
    b := format('%s', c); a := a + 1;
end$body$;
create function rows_of() returns table (x int, "Y y" text) language plpgsql stable rows 17 as
    E'begin return query select 1, ''\\\\a\n\tb''; end';
create procedure plpgsql_procedure() language plpgsql as 'begin commit; end';
create function in_perl(text) returns text language plperl as $$ return reverse($_[0]) . "\$\n"; $$;
create function in_untrusted_perl() returns int language plperlu as $perl$ return $$; $perl$;
create function in_python(a int) returns int language plpython3u as 'return a + 1';
create function in_c(text, text) returns int4 language c strict as '$libdir/fuzzystrmatch', 'levenshtein';
create function in_internal(int, int) returns int language internal immutable strict as 'int4pl';
create function window_function() returns bigint language internal window as 'window_row_number';
create function overloaded(int) returns int language sql as 'select 1';
create function overloaded(text) returns int language sql as 'select 2';
create function unchecked() returns int language plpgsql as 'begin return (select nothing from no_such_table); end';
-- Its body cannot be checked when it is made: the table comes and goes.
set check_function_bodies = off;
create function broken() returns int language sql as 'select nothing from no_such_table';
reset check_function_bodies;
create function support_function(internal) returns internal language internal as 'generate_series_int4_support';

create function note() returns trigger language plpgsql as $$
begin
    insert into code.log values (tg_name || ' ' || tg_op || ' ' || current_setting('session_replication_role'));
    if tg_level = 'ROW' then return coalesce(new, old); end if;
    return null;
end$$;
create trigger disabled after insert on watched for each row execute function note('an argument', '');
create trigger replica after insert on watched for each row execute function note();
create trigger always after insert or update of note or delete on watched for each row execute function note();
create trigger ordinary before insert on watched for each row when (new.id > 1) execute function note();
create trigger statement_trigger after update on watched referencing old table as before new table as after
    for each statement execute function note();
create trigger truncating before truncate on watched execute function note();
create constraint trigger deferred_trigger after insert on watched deferrable initially deferred for each row execute function note();
insert into watched values (1, 'one'), (2, 'two');
set constraints all immediate;
alter table watched disable trigger disabled, enable replica trigger replica, enable always trigger always;
insert into watched values (3, 'three');
set constraints all immediate;

-- Triggers of a partitioned table, in another state in a partition.
create table parts (id int) partition by range (id);
create table part_1 partition of parts for values from (0) to (10);
create table part_2 partition of parts for values from (10) to (20);
create trigger cloned after insert on parts for each row execute function note();
alter table part_1 disable trigger cloned;
alter table part_2 enable always trigger cloned;
insert into parts values (1), (11);

create view plain_view as select id, note from watched where id > 0;
create view checked_view with (security_barrier, check_option = cascaded, security_invoker = on) as select id, note from watched;
create recursive view recursive_view (n) as values (1) union all select n + 1 from recursive_view where n < 5;
create view with_columns ("A b", c) as select id, note from plain_view;
alter view plain_view alter column note set default 'from the view';
create function instead() returns trigger language plpgsql as 'begin return null; end';
create trigger instead_of instead of insert on checked_view for each row execute function instead();
-- Two views that read each other: only rules can make them.
create view knows_other as select 1 as one;
create view knows_one as select one from knows_other;
create or replace view knows_other as select 2 as one;
create view group_by_key as select id, note, count(*) from watched group by id;
create function of_view() returns setof plain_view language sql as 'select * from code.plain_view';
create view of_function as select * from of_view();

create rule ignored as on insert to log where new.line = 'ignored' do instead nothing;
create rule also as on delete to watched do also (insert into code.log values ('deleted ' || old.id); notify deleted);
create rule is_disabled as on update to log do also select 1;
alter table log disable rule is_disabled;
create rule is_always as on update to watched where old.id = 77 do also select 1;
alter table watched enable always rule is_always;
create rule is_replica as on update to watched where old.id = 78 do also select 1;
alter table watched enable replica rule is_replica;

create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '5', combinefunc = int4pl, parallel = safe);
create aggregate moving(int) (sfunc = int4pl, stype = int, sspace = 16, mstype = int, msfunc = int4pl, minvfunc = int4mi, minitcond = '0', initcond = '0');
create aggregate percent(float8 order by anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra);

comment on function in_sql(int, int, int[]) is 'A function';
comment on procedure plpgsql_procedure() is 'A procedure';
comment on aggregate total(int) is 'An aggregate';
comment on trigger always on watched is 'A trigger';
comment on rule also on watched is 'A rule';
comment on view plain_view is 'A view';

-- They would stop every change of a schema, and every restore that they fired in.
create function refuse() returns event_trigger language plpgsql as $$begin raise exception 'no ddl here: %', tg_tag; end$$;
create event trigger refuse_start on ddl_command_start execute function refuse();
alter event trigger refuse_start disable;
create event trigger refuse_end on ddl_command_end when tag in ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX') execute function refuse();
create event trigger refuse_drop on sql_drop execute function refuse();
create event trigger refuse_rewrite on table_rewrite execute function refuse();
comment on event trigger refuse_end is 'An event trigger';
alter event trigger refuse_rewrite enable always;
alter event trigger refuse_drop enable replica;
alter event trigger refuse_start enable;
