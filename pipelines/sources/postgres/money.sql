-- How many decimal places money has in this database, by its own lc_monetary; a role's or client's counts for nothing.
SET LOCAL lc_monetary TO DEFAULT;
SELECT CASE WHEN set_config('lc_monetary', coalesce(own, CASE WHEN source ~ 'user|client' THEN datctype END, reset_val), true)
            <> '' THEN scale(0::money::numeric) ELSE 2 END
FROM pg_settings, pg_database d, LATERAL (
  SELECT (array_agg(substr(c, 13) ORDER BY setdatabase DESC))[1] AS own FROM pg_db_role_setting, unnest(setconfig) c
  WHERE c ~ '^lc_monetary=' AND setrole = 0 AND setdatabase IN (0, d.oid)
) s WHERE name = 'lc_monetary' AND datname = current_database()
