#!/bin/sh
# What the operator's probes call.
[ -z "${REDIS_PASSWORD:-}" ] || export REDISCLI_AUTH=$REDIS_PASSWORD
[ "$(redis-cli -p "${REDIS_PORT:-6379}" ping)" = PONG ]
