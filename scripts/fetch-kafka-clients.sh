#!/usr/bin/env bash
# Fetch the Kafka clients that tests/clients tries and no package manager of the system has: Kafka's own Java clients and
# console tools by Maven, kafkajs by npm.  They go into the cache directory; what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/seatrial"
mkdir -p "$cache"

# A directory under its last name is complete: it is filled under another one first.
for version in 4.3.0 3.9.1; do
  jars="$cache/kafka-java-$version"
  if [ ! -d "$jars" ]; then
    rm -rf "$jars.part"
    mvn -q -B -f tests/clients/java/pom.xml "-Dkafka.version=$version" dependency:copy-dependencies "-DoutputDirectory=$jars.part"
    mv "$jars.part" "$jars"
  fi
done

packages="$cache/kafkajs-2.2.4"
if [ ! -d "$packages" ]; then
  rm -rf "$packages.part"
  mkdir "$packages.part"
  npm install --silent --no-fund --no-audit --no-save --prefix "$packages.part" \
    kafkajs@2.2.4 kafkajs-snappy@1.1.0 lz4js@0.2.0 @bokuweb/zstd-wasm@0.0.27
  mv "$packages.part" "$packages"
fi
