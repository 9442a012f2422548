-- The columns of one relation, by its oid, in their order.
WITH RECURSIVE base AS (
  -- A column of a domain is of the type below it, with that type's precision unless the column has its own.
  SELECT a.attnum, a.attname, a.atttypid AS typid, a.atttypmod AS typmod FROM pg_attribute a
  WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN b.typmod = -1 THEN t.typtypmod ELSE b.typmod END
  FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
),
held AS (
  -- The types of its values' parts, too: of array, domain, range, multirange and composite.
  SELECT attnum, typid FROM base
  UNION
  SELECT h.attnum, unnest(ARRAY[t.typelem, t.typbasetype, r.rngsubtype, m.rngsubtype]
                          || ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid))
  FROM held h JOIN pg_type t ON t.oid = h.typid
  LEFT JOIN pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
)
SELECT
  b.attname,
  -- Type: PostgreSQL's internal name; "enum", or "other" when an extension or a user made it.
  CASE WHEN t.typtype = 'e' THEN 'enum' WHEN n.nspname <> 'pg_catalog' THEN 'other' ELSE t.typname END,
  -- Precision and scale of a numeric: typmod is ((precision << 16) | (scale & 0x7ff)) + 4, the scale signed in 11 bits.
  -- Money has 64 bits, for 19 digits.
  CASE WHEN t.typname = 'money' THEN 19
       WHEN t.typname = 'numeric' AND b.typmod > 0 THEN ((b.typmod - 4) >> 16) & 65535 END,
  CASE WHEN t.typname = 'numeric' AND b.typmod > 0 THEN (((b.typmod - 4) & 2047) # 1024) - 1024 END,
  -- Whether this user may read it.
  has_column_privilege(%(oid)s::oid, b.attnum, 'SELECT'),
  -- Whether its values are or hold money.
  EXISTS (SELECT FROM held h WHERE h.attnum = b.attnum AND h.typid = 'money'::regtype)
FROM base b
JOIN pg_type t ON t.oid = b.typid
JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype <> 'd'
ORDER BY b.attnum
