-- Relations, functions and types by their names.
SELECT kind, name::text, nspname::text, t.oid::int8 FROM (SELECT DISTINCT unnest(%(names)s::name[])) w (wanted), LATERAL (
  SELECT 'relation', relname, oid, relnamespace FROM pg_class WHERE relname = wanted
  UNION ALL SELECT 'function', proname, oid, pronamespace FROM pg_proc WHERE proname = wanted
  UNION ALL SELECT 'type', typname, oid, typnamespace FROM pg_type WHERE typname = wanted
) t (kind, name, oid, namespace) JOIN pg_namespace n ON n.oid = namespace
WHERE nspname !~ '^(pg_t.*|information_schema)$' ORDER BY 1, 2, 3, 4
