-- One table, by its oid: all that can change what its rows look like without writing them.
WITH RECURSIVE part AS (
  -- The table and its partitions, at any depth.
  SELECT %(oid)s::oid AS oid
  UNION
  SELECT i.inhrelid FROM pg_inherits i JOIN part p ON i.inhparent = p.oid
),
typ AS (
  -- The types of its columns, and all types below them: of array, domain, range, multirange and composite.
  SELECT a.atttypid AS oid FROM pg_attribute a WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT unnest(ARRAY[t.typelem, t.typbasetype, r.rngsubtype, m.rngsubtype]
                || ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND t.typtype = 'c'))
  FROM typ JOIN pg_type t USING (oid)
  LEFT JOIN pg_range r ON r.rngtypid = t.oid
  LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
)
SELECT
  -- Relations: the oids of the table and its partitions. One that was swapped or attached has another.
  (SELECT string_agg(oid::text, ' ' ORDER BY oid) FROM part),
  -- Columns of each: name, type, collation, generation, and both defaults. The missing value is what rows show that are
  -- older than their column.
  (SELECT string_agg(concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation,
     a.attgenerated, a.attmissingval::text, md5(pg_get_expr(d.adbin, d.adrelid))), ',' ORDER BY a.attrelid, a.attnum)
   FROM pg_attribute a JOIN part ON part.oid = a.attrelid
   LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attnum > 0 AND NOT a.attisdropped),
  -- Types: what a value's text depends on, with the labels of an enum and the members of a composite.
  (SELECT string_agg(concat_ws(' ', t.oid, t.typname, t.typoutput,
     (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
     (SELECT string_agg(concat_ws(' ', attname, atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute
      WHERE attrelid = t.typrelid AND t.typtype = 'c' AND NOT attisdropped)), ';' ORDER BY t.oid)
   FROM typ JOIN pg_type t USING (oid)),
  -- Foreign: whether a part of it is no table of PostgreSQL's own kind, whose rows have an xmin that says nothing.
  EXISTS (SELECT FROM part JOIN pg_class c USING (oid) LEFT JOIN pg_am am ON am.oid = c.relam
          WHERE c.relkind NOT IN ('r', 'p') OR (c.relkind = 'r' AND am.amname <> 'heap')),
  -- Names: whether a column holds names of the catalogue, whose text changes when a thing is renamed.
  EXISTS (SELECT FROM typ JOIN pg_type t USING (oid) WHERE t.typname ~ '^(reg[a-z]+|aclitem)$')
