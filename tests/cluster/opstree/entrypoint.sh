#!/bin/sh
# Starts Redis as the images of OT-Container-Kit do: their operator says by the environment what it is to be.
set -eu
address=$(hostname -i)
config=/tmp/redis.conf
{
  echo "port ${REDIS_PORT:-6379}"
  [ -z "${REDIS_PASSWORD:-}" ] || printf 'requirepass %s\nmasterauth %s\n' "$REDIS_PASSWORD" "$REDIS_PASSWORD"
  if [ "${PERSISTENCE_ENABLED:-}" = true ]; then
    printf 'dir /data\nsave 900 1\nsave 300 10\nsave 60 10000\nappendonly yes\nappendfilename appendonly.aof\n'
  fi
  if [ "${SETUP_MODE:-}" = cluster ]; then
    printf 'cluster-enabled yes\ncluster-node-timeout 5000\ncluster-require-full-coverage no\ncluster-migration-barrier 1\n'
    printf 'cluster-config-file /node-conf/nodes.conf\ncluster-announce-ip %s\n' "$address"
    [ "${REDIS_MAJOR_VERSION:-}" != v7 ] || echo "cluster-announce-hostname $(hostname -f)"
  fi
  [ ! -e /etc/redis/external.conf.d/redis-additional.conf ] || echo "include /etc/redis/external.conf.d/redis-additional.conf"
} >"$config"
# A node that comes back has another address.
[ ! -e /node-conf/nodes.conf ] || sed -i "/myself/ s/[0-9]*\.[0-9]*\.[0-9]*\.[0-9]*/$address/" /node-conf/nodes.conf
exec redis-server "$config"
