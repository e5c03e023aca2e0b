#!/bin/sh
# run.sh ADDRESS VERSION: nginx in the foreground, with everything that it writes in the folder
# that the instance has of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${TIDEGATE_WORK_DIR:?is set by the host}
# Workers of a master that runs as root would become another user, who cannot read a private home.
user=
if [ "$(id -u)" = 0 ]; then user='user root;'; fi
cat >"$work/nginx.conf" <<CONF
daemon off;
$user
worker_processes 1;
pid $work/nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    types { text/html html; }
    server {
        listen $1;
        root $here/site;
        add_header x-version $2 always;
        location = /health { return 200 "live\n"; }
        location = /version { return 200 '{"version":"$2"}'; }
    }
}
CONF
PATH="$PATH:/usr/sbin"
exec nginx -p "$work" -c "$work/nginx.conf" -e stderr
