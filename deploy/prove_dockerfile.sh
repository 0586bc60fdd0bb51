#!/usr/bin/env bash
# Carries out the Dockerfile's steps in clean roots, where there is no container engine, and tries the result:
#     deploy/prove_dockerfile.sh [FOLDER]          (root; debootstrap; a few minutes; 2 GB under FOLDER, a new one in /tmp)
# RUN, COPY, ENV, WORKDIR, USER, ENTRYPOINT, CMD and HEALTHCHECK are read from the Dockerfile. A minimal Debian with its Python stands in
# for python:3.12-slim, files known to git for the build context. The server then runs as PID 1 of a PID namespace, as the
# image's user, on a root that is mounted read-only with /tmp alone writable: it has to become healthy, to answer a call and to
# drain on SIGTERM with exit status 0. The last lines say the sizes and the outcome. FOLDER/base is made once.
set -euo pipefail

SOURCE=$(cd "$(dirname "$0")/.." && pwd)
SUITE=${SUITE:-bookworm}
BASE_PACKAGES=python3,python3-venv,ca-certificates
INSTRUCTIONS_READ="FROM ARG LABEL RUN COPY ENV WORKDIR USER EXPOSE HEALTHCHECK STOPSIGNAL ENTRYPOINT CMD"

give_up() { echo "not proven: $*"; exit 1; }
say() { echo "== $*"; }

[ "$(id -u)" = 0 ] || give_up "chroot and mount need root"
command -v debootstrap >/dev/null || give_up "debootstrap is missing: apt-get install -y debootstrap"
unshare --mount --pid --fork true 2>/dev/null || give_up "namespaces cannot be made here (unshare is refused)"

FOLDER=$(realpath -m "${1:-$(mktemp -d)}")
mkdir -p "$FOLDER"
SERVER=
finish() { [ -z "$SERVER" ] || kill -KILL "$SERVER" 2>/dev/null || true; }
trap finish EXIT

if [ ! -e "$FOLDER/base/.complete" ]; then
    say "base: $SUITE, $BASE_PACKAGES"
    rm -rf "$FOLDER/base"
    debootstrap --variant=minbase --include="$BASE_PACKAGES" "$SUITE" "$FOLDER/base" >"$FOLDER/debootstrap.log" 2>&1 \
        || give_up "debootstrap failed: $(tail -n 1 "$FOLDER/debootstrap.log")"
    rm -f "$FOLDER"/base/var/cache/apt/archives/*.deb
    touch "$FOLDER/base/.complete"
fi

rm -rf "$FOLDER/context" "$FOLDER"/stage-*
mkdir "$FOLDER/context"
(cd "$SOURCE" && git ls-files -z | xargs -0 cp --parents -t "$FOLDER/context")

# One instruction a line: comments gone, continued lines joined.
mapfile -t INSTRUCTIONS < <(sed -e '/^[[:space:]]*#/d' "$SOURCE/Dockerfile" | sed -e ':a' -e '/\\$/{N;s/\\\n[[:space:]]*//;ta' -e '}' | sed '/^$/d')

# JSON array, to one word a line.
words() { python3 -c 'import json, sys; print("\n".join(json.loads(sys.argv[1])))' "$1"; }

in_root() {     # root, command: as a RUN line, with this machine's resolver and certificates
    local root=$1 kept=()
    shift
    for name in http_proxy https_proxy no_proxy PIP_INDEX_URL; do
        [ -z "${!name:-}" ] || kept+=("$name=${!name}")
    done
    unshare --mount sh -c 'mount -t proc proc "$0/proc" && exec "$@"' "$root" \
        chroot "$root" env -i HOME=/root "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt "${kept[@]}" "${ENVIRONMENT[@]}" sh -c "cd '$DIRECTORY' && $*"
}

run() {         # command, in the stage at hand
    in_root "$ROOT" "$1" >"$FOLDER/run.log" 2>&1 || { tail -n 20 "$FOLDER/run.log"; give_up "failed: $1"; }
}

copy() {        # root, arguments of COPY
    local root=$1 from="$FOLDER/context" target
    shift
    if [[ $1 == --from=* ]]; then from="$FOLDER/stage-${1#--from=}"; shift; fi
    local sources=("${@:1:$#-1}") target=${!#}
    [[ $target == /* ]] || target="$DIRECTORY/$target"
    if [ -d "$from/${sources[0]}" ]; then
        mkdir -p "$root$target"
        cp -a "$from/${sources[0]}/." "$root$target/"
    else
        mkdir -p "$root$target"
        cp -a "${sources[@]/#/$from/}" "$root$target/"
    fi
}

STAGE= ROOT= ENVIRONMENT=() DIRECTORY=/ RUN_AS=0:0 ENTRY=() ARGUMENTS=() HEALTH=()
for line in "${INSTRUCTIONS[@]}"; do
    word=${line%%[[:space:]]*}
    rest=${line#"$word"}
    rest=${rest#"${rest%%[![:space:]]*}"}
    [[ " $INSTRUCTIONS_READ " == *" $word "* ]] || give_up "the Dockerfile's $word is not known to this script"
    case $word in
        FROM)
            STAGE=$(sed -n 's/.* AS //p' <<<"$rest")
            STAGE=${STAGE:-image}
            ROOT="$FOLDER/stage-$STAGE" ENVIRONMENT=() DIRECTORY=/ RUN_AS=0:0
            say "stage $STAGE"
            cp -a "$FOLDER/base" "$ROOT"
            cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc/"
            cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
            # Python's headers are part of python:3.12-slim, and of no use but to build.
            [ "$STAGE" != build ] || run "apt-get update && apt-get install -y --no-install-recommends python3-dev" ;;
        RUN) say "RUN $rest"; run "$rest" ;;
        COPY) say "COPY $rest"; read -ra parts <<<"$rest"; copy "$ROOT" "${parts[@]}" ;;
        ENV) read -ra parts <<<"$rest"; ENVIRONMENT+=("${parts[@]}") ;;
        WORKDIR) DIRECTORY=$rest; mkdir -p "$ROOT$rest" ;;
        USER) RUN_AS=$rest ;;
        ENTRYPOINT) mapfile -t ENTRY < <(words "$rest") ;;
        CMD) mapfile -t ARGUMENTS < <(words "$rest") ;;
        HEALTHCHECK) mapfile -t HEALTH < <(words "[${rest#*[}") ;;
    esac
done
cp -a "$SOURCE/examples/models/." "$ROOT/models/"

read -r GRPC_PORT HTTP_PORT < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in sockets))')
ENVIRONMENT+=("INFER_PORT=$GRPC_PORT" "INFER_HTTP_PORT=$HTTP_PORT" "INFER_DRAIN_DELAY=1")

say "${ENTRY[*]} ${ARGUMENTS[*]} as $RUN_AS on a read-only root"
unshare --mount --pid --fork --kill-child sh -c '
    root=$0; directory=$1; user=$2; shift 2
    mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" && mount -t proc proc "$root/proc" \
        && mount -t tmpfs -o mode=1777 tmpfs "$root/tmp" && mount --bind /dev "$root/dev" \
        && exec chroot --userspec="$user" "$root" env -i "$@"' \
    "$ROOT" "$DIRECTORY" "$RUN_AS" -C "$DIRECTORY" "${ENVIRONMENT[@]}" "${ENTRY[@]}" "${ARGUMENTS[@]}" >"$FOLDER/server.log" 2>&1 &
SERVER=$!

in_container() { nsenter --target "$FIRST" --mount --pid chroot --userspec="$RUN_AS" "$ROOT" env -i -C "$DIRECTORY" "${ENVIRONMENT[@]}" "$@"; }

FIRST=
for _ in $(seq 300); do
    kill -0 "$SERVER" 2>/dev/null || { cat "$FOLDER/server.log"; give_up "the server ended"; }
    FIRST=$(pgrep -P "$SERVER" || true)
    if [ -n "$FIRST" ] && in_container "${HEALTH[@]}" >"$FOLDER/health.log" 2>&1; then break; fi
    sleep 0.2
done
grep -q serving "$FOLDER/health.log" || { cat "$FOLDER/server.log" "$FOLDER/health.log"; give_up "the server did not become healthy"; }
say "healthy: ${HEALTH[*]}"
say "PID in its namespace: $(awk '/^NSpid/ {print $NF}' "/proc/$FIRST/status"), user $(awk '/^Uid/ {print $2}' "/proc/$FIRST/status")," \
    "program $(tr '\0' ' ' <"/proc/$FIRST/cmdline")"
if in_container sh -c 'echo > /written' 2>/dev/null; then give_up "the root can be written to"; fi
in_container infer call digits --address "localhost:$GRPC_PORT" || give_up "no answer to infer call"

kill -TERM "$FIRST"
STATUS=0
wait "$SERVER" || STATUS=$?
SERVER=
tail -n 4 "$FOLDER/server.log"
[ "$STATUS" = 0 ] || give_up "exit status $STATUS after SIGTERM, expected 0"
rm -rf "${ROOT:?}"/models/*
size() { du -sm --exclude=proc "$1" | cut -f 1; }
say "size: $(size "$ROOT") MB in all, of which $(size "$ROOT/opt/infer") MB are /opt/infer; the base alone has $(size "$FOLDER/base") MB"
echo "proven: built, healthy, answered, drained with exit status 0 as PID 1, user $RUN_AS, read-only root"
