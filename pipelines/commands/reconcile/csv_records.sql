-- The records of two CSVs of the same gold rows, numbered, with a hash of their cells and the number of each copy. What
-- stands for a dollar and a name: `fresh` and `given`, the relations of the records; `names`, their columns; `gold`, the
-- relation of the rows; `key`, gold's key, and `named_key`, the same as _key0, _key1, ...

CREATE OR REPLACE TEMP TABLE e AS -- of the fresh CSV
SELECT *, row_number() OVER (PARTITION BY _hash ORDER BY _n) AS _copy
FROM (SELECT *, row_number() OVER () AS _n, hash($names) AS _hash FROM $fresh);

CREATE OR REPLACE TEMP TABLE a AS -- of the given CSV
SELECT *, row_number() OVER (PARTITION BY _hash ORDER BY _n) AS _copy
FROM (SELECT *, row_number() OVER () AS _n, hash($names) AS _hash FROM $given);

CREATE OR REPLACE TEMP TABLE k AS -- gold's key of each number of a fresh record
SELECT $named_key, row_number() OVER (ORDER BY $key) AS _n
FROM $gold;
