-- One table or view, by schema and name.
SELECT
  c.oid,
  -- Size in bytes; 0 when it has no pages of its own that can be read by range.
  CASE WHEN c.relkind IN ('r', 'm') AND am.amname = 'heap' THEN pg_relation_size(c.oid) ELSE 0 END,
  -- Bytes of a page.
  current_setting('block_size')::int,
  -- Whether its rows have an xmin.
  c.relkind IN ('r', 'm', 'p')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_am am ON am.oid = c.relam
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
