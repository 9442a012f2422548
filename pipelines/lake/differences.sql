-- The rows in which two relations differ, with all their copies. What stands for a dollar and a name: the relations
-- `expected` and `actual`; `key`, the key as a struct; `values`, each column as c0, c1, ..., and `columns`, their names;
-- `changed`, how many values of each column differ.

CREATE TEMP VIEW expected AS
SELECT *, hash($columns) AS h -- of all columns
FROM (SELECT $key AS k, $values FROM $expected);

CREATE TEMP VIEW actual AS
SELECT *, hash($columns) AS h
FROM (SELECT $key AS k, $values FROM $actual);

-- What only one side has. Rows of one key are distinguished by their number n.
CREATE TEMP TABLE only_expected AS
SELECT k, h, row_number() OVER (PARTITION BY k ORDER BY h) AS n
FROM (SELECT k, h FROM expected EXCEPT ALL SELECT k, h FROM actual);

CREATE TEMP TABLE only_actual AS
SELECT k, h, row_number() OVER (PARTITION BY k ORDER BY h) AS n
FROM (SELECT k, h FROM actual EXCEPT ALL SELECT k, h FROM expected);

CREATE TEMP TABLE pairs AS
SELECT
    coalesce(e.k, a.k) AS k,
    e.h AS expected_h, -- null when the row is extra
    a.h AS actual_h, -- null when the row is missing
    CASE WHEN a.h IS NULL THEN 'missing' WHEN e.h IS NULL THEN 'extra' ELSE 'changed' END AS kind
FROM only_expected e FULL JOIN only_actual a ON e.k = a.k AND e.n = a.n;

-- One row: how many values of each column are others.
CREATE TEMP VIEW changed_values AS
SELECT $changed
FROM pairs p
JOIN (
    SELECT DISTINCT ON (k, h) * FROM expected WHERE (k, h) IN (SELECT k, h FROM only_expected)
) e ON e.k = p.k AND e.h = p.expected_h
JOIN (
    SELECT DISTINCT ON (k, h) * FROM actual WHERE (k, h) IN (SELECT k, h FROM only_actual)
) a ON a.k = p.k AND a.h = p.actual_h;
