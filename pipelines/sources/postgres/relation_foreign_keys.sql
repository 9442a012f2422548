-- The foreign keys of one column of a relation, by its oid, that hold for every row: validated, and onto a valid index.
SELECT
  -- The column.
  (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1]),
  -- The table that it refers to, in the same schema.
  f.relname,
  -- The column there.
  (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.confrelid AND a.attnum = c.confkey[1])
FROM pg_constraint c
JOIN pg_class r ON r.oid = c.conrelid
JOIN pg_class f ON f.oid = c.confrelid AND f.relnamespace = r.relnamespace
JOIN pg_index i ON i.indexrelid = c.conindid AND i.indisvalid
WHERE c.conrelid = %(oid)s AND c.contype = 'f' AND c.convalidated AND cardinality(c.conkey) = 1
  -- When other tables inherit from it, its constraints say nothing about their rows.
  AND (r.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = r.oid))
