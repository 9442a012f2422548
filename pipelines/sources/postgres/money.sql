-- How many decimal places money has in this database, by its own lc_monetary; a role's own counts for nothing.
SELECT CASE WHEN set_config('lc_monetary', coalesce(of_database, CASE WHEN of_role THEN datctype END, reset_val), true)
            <> '' THEN scale(0::money::numeric) ELSE 2 END
FROM pg_settings, pg_database d, LATERAL (
  SELECT max(substr(c, 13)) FILTER (WHERE setrole = 0) AS of_database, bool_or(setrole <> 0) AS of_role
  FROM pg_db_role_setting, unnest(setconfig) c WHERE c ~ '^lc_monetary=' AND (setrole = 0 AND setdatabase = d.oid OR
    setdatabase IN (0, d.oid) AND setrole = (SELECT oid FROM pg_roles WHERE rolname = session_user))
) s WHERE name = 'lc_monetary' AND datname = current_database()
