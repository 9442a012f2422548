-- A float as PostgreSQL prints it. DuckDB's own text has the same, shortest digits, but writes 1.0, 1e+16 and inf for
-- 1, 1e+16 and Infinity. `places`: from how many digits before the point PostgreSQL writes an exponent, 15 or, of a
-- real, 6. Source: https://github.com/postgres/postgres/blob/master/src/common/d2s.c
CREATE OR REPLACE TEMP MACRO pg_float(v, places) AS CASE
    WHEN isnan(v) THEN 'NaN'
    WHEN isinf(v) THEN if(v > 0, 'Infinity', '-Infinity')
    WHEN v = 0 THEN if(starts_with(v::varchar, '-'), '-0', '0')
    ELSE if(v < 0, '-', '') || (
        SELECT CASE
            WHEN e < -4 OR e >= places THEN d[1] || if(length(d) > 1, '.' || d[2:], '') || printf('e%+03d', e)
            WHEN e < 0 THEN '0.' || repeat('0', -e - 1) || d
            WHEN e >= length(d) - 1 THEN d || repeat('0', e + 1 - length(d))
            ELSE d[1:e + 1] || '.' || d[e + 2:]
        END
        FROM (
            SELECT
                rtrim(ltrim(whole || part, '0'), '0') AS d, -- the digits, the first one no zero
                shift + if(whole = '0', length(ltrim(part, '0')) - length(part), length(whole)) - 1 AS e -- of the first
            FROM (
                SELECT
                    regexp_extract(t, '^\d+') AS whole, -- before the point
                    regexp_extract(t, '\.(\d+)', 1) AS part, -- behind it
                    coalesce(nullif(regexp_extract(t, 'e(.+)$', 1), '')::int, 0) AS shift -- the exponent
                FROM (SELECT abs(v)::varchar AS t)
            )
        )
    )
END
