-- The functions that views and functions call, by their oids, whose text is resolved when they run. And the views among
-- these that ask for the first schema of search_path.
WITH RECURSIVE reached (class, oid) AS (
  (SELECT 'pg_class'::regclass::oid, unnest(%(views)s::oid[])
   UNION ALL SELECT 'pg_proc'::regclass, unnest(%(functions)s::oid[]))
  UNION
  SELECT next.* FROM reached r LEFT JOIN pg_proc p ON r.class = 'pg_proc'::regclass AND p.oid = r.oid, LATERAL (
    -- Rules, functions, aggregates, operators and checks: what they depend on. Then a view's rule, a domain's checks.
    SELECT d.refclassid, d.refobjid FROM pg_depend d WHERE d.classid = r.class AND d.objid = r.oid
      AND r.class = ANY('{pg_rewrite,pg_proc,pg_operator,pg_constraint}'::regclass[])
    UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite w JOIN pg_class v ON v.oid = w.ev_class
    WHERE r.class = 'pg_class'::regclass AND v.oid = r.oid AND v.relkind = 'v'
    UNION ALL SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c
    WHERE r.class = 'pg_type'::regclass AND c.contypid = r.oid
  ) next
  -- With a search_path of its own a function finds the same for everybody, and so does what it calls.
  WHERE concat(p.proconfig, p.prosrc) !~* 'search_path'
), soft (type, held, word, place) AS MATERIALIZED (
  -- Types that PostgreSQL may take for its own, as citext for text; their arrays, domains and columns.
  SELECT castsource, held.* FROM pg_cast JOIN pg_type t ON castsource IN (t.oid, t.typelem, t.typbasetype), LATERAL (
    SELECT t.oid, lower(t.typname), '' UNION ALL SELECT c.reltype, lower(a.attname), lower(c.relname)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.atttypid = t.oid
  ) held WHERE castsource >= 16384 AND castcontext = 'i'
), own (schema, name, kind, types, hides) AS MATERIALIZED (
  -- Operators, and functions; whether PostgreSQL has one that takes the same arguments, which are of its own types.
  SELECT nspname::text, each.*, 16384 > ALL(types) AND EXISTS (SELECT FROM pg_proc q
    WHERE (proname, pronamespace, pronargs) = (name, 'pg_catalog'::regnamespace, cardinality(types)) AND NOT EXISTS (
      SELECT FROM unnest(types, proargtypes::oid[]) pair (own, other) WHERE own <> other AND NOT EXISTS (
        SELECT FROM pg_cast WHERE (castsource, casttarget, castcontext) = (own, other, 'i'))
    ) AND proargtypes::oid[] <> types)
  FROM pg_namespace n, LATERAL (
    SELECT oprname, 'operators', ARRAY[oprleft, oprright] FROM pg_operator WHERE oprnamespace = n.oid
    UNION ALL SELECT proname, proname, proargtypes FROM pg_proc WHERE pronamespace = n.oid AND proname ~ '^\w+$'
  ) each (name, kind, types) WHERE nspname !~ '^(pg_|information_schema$)'
)
SELECT p.oid::int8, p.oid::regprocedure::text, p.prosrc,
  -- Schemas and names of operators and functions, instead of which PostgreSQL's own would be taken.
  ARRAY(SELECT DISTINCT ARRAY[schema, kind] FROM own JOIN (SELECT text, ARRAY(SELECT type FROM soft
      WHERE held = ANY(p.proargtypes) OR strpos(text, word) > 0 AND strpos(text, place) > 0) AS known
    FROM lower(p.prosrc) text OFFSET 0) t ON (hides OR types && known) AND (
      kind = 'operators' AND text ~ '\m(in|i?like|similar|between|case|nullif|distinct|using|natural)\M' OR
      strpos(text, name) > 0 AND (kind = 'operators' OR text ~ concat('(^|[^.\w])', name, '\s*\('))))
FROM reached r JOIN pg_proc p ON r.class = 'pg_proc'::regclass AND p.oid = r.oid JOIN pg_language l ON l.oid = p.prolang
WHERE p.prosqlbody IS NULL AND l.lanname NOT IN ('internal', 'c') AND concat(p.proconfig, p.prosrc) !~* 'search_path'
UNION ALL
SELECT v.oid::int8, v.oid::regclass::text, 'current_schema', '{}' FROM reached r JOIN pg_class v ON v.oid = r.oid
WHERE r.class = 'pg_class'::regclass AND v.relkind = 'v' AND pg_get_viewdef(r.oid) ~* '\mcurrent_schemas?\M'
ORDER BY 2
