-- Ends the current versions of the changed keys, and begins the ones that a step has. What stands for a dollar and a
-- name: `changed`, a relation of keys; `keys` and `columns`, the columns of the key and of the table; `same_key`, the
-- condition that a row of `history` has a key of `changed`; `rows`, what silver has after the step; `started`, when its
-- run of bronze began.

CREATE OR REPLACE TEMP TABLE changed AS SELECT * FROM $changed;

-- At the start of the run, or after all that is known if the clock is behind.
UPDATE moment
SET value = greatest('$started'::timestamptz, value + INTERVAL 1 microsecond)
WHERE EXISTS (FROM changed);

UPDATE history
SET _valid_to = (SELECT value FROM moment), _current = false
FROM changed
WHERE history._current AND $same_key;

INSERT INTO history BY NAME
SELECT $columns, (SELECT value FROM moment) AS _valid_from, true AS _current
FROM $rows SEMI JOIN changed USING ($keys);

INSERT INTO touched SELECT * FROM changed;
