-- PostgreSQL's image runs this once: the role that fills the demo's source, and the role that may only read it. psql reads
-- the passwords from files, so that no command line has them.
\set seeder `cat /run/secrets/seeder_password`
\set reader `cat /run/secrets/lakehouse_postgres__password`
CREATE ROLE semeador LOGIN PASSWORD :'seeder';
CREATE ROLE leitor LOGIN PASSWORD :'reader';
GRANT CREATE ON SCHEMA public TO semeador;
ALTER DEFAULT PRIVILEGES FOR ROLE semeador GRANT SELECT ON TABLES TO leitor;
