-- The columns of each unique key of a relation, by its oid, that holds for every row and has no nulls.
SELECT
  array_agg(a.attname::text)
FROM pg_index i
JOIN pg_class r ON r.oid = i.indrelid
JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, nth) ON k.nth <= i.indnkeyatts
-- Only columns that are not null, by a constraint that was validated.
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnotnull AND NOT EXISTS (
  SELECT FROM pg_constraint n
  WHERE n.conrelid = r.oid AND n.contype = 'n' AND NOT n.convalidated AND n.conkey = ARRAY[k.attnum])
-- An index is not valid while, for example, some partitions of its table lack it.
WHERE i.indrelid = %(oid)s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
  -- When other tables inherit from it, its constraints say nothing about their rows.
  AND (r.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = r.oid))
GROUP BY i.indexrelid
HAVING count(a.attname) = count(*)
