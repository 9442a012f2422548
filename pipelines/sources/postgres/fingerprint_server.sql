-- The server: what must be the same for its transaction ids to mean the same.
SELECT
  -- Timeline: another one after a restore or a failover. A standby knows it from its last checkpoint only.
  CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())::text
       ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END,
  -- Server: the number that initdb drew.
  (SELECT system_identifier FROM pg_control_system())::text,
  -- Database: its oid, which a database of the same name that was created later has not.
  (SELECT oid FROM pg_database WHERE datname = current_database())::text,
  -- Version: how values look as text may change with it.
  current_setting('server_version_num'),
  -- Extensions and their versions: they bring types.
  (SELECT string_agg(extname || extversion, ' ' ORDER BY extname) FROM pg_extension),
  -- Start: a copy of the data folder has its own.
  pg_postmaster_start_time()::text
