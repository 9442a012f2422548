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
)
SELECT p.oid::int8, p.oid::regprocedure::text, p.prosrc,
  -- The schemas of operators of its arguments for which PostgreSQL's own would be taken, as text's are for citext.
  ARRAY(SELECT DISTINCT n.nspname::text FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
   WHERE o.oprleft = ANY(p.proargtypes) AND n.nspname <> 'pg_catalog' AND strpos(p.prosrc, o.oprname) > 0
     AND EXISTS (SELECT FROM pg_cast c WHERE c.castsource = o.oprleft AND c.castcontext = 'i'))
FROM reached r JOIN pg_proc p ON r.class = 'pg_proc'::regclass AND p.oid = r.oid JOIN pg_language l ON l.oid = p.prolang
WHERE p.prosqlbody IS NULL AND l.lanname NOT IN ('internal', 'c') AND concat(p.proconfig, p.prosrc) !~* 'search_path'
UNION ALL
SELECT v.oid::int8, v.oid::regclass::text, 'current_schema', '{}' FROM reached r JOIN pg_class v ON v.oid = r.oid
WHERE r.class = 'pg_class'::regclass AND v.relkind = 'v' AND pg_get_viewdef(v.oid) ~* '\mcurrent_schemas?\M'
ORDER BY 2
