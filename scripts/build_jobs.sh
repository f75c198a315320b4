# Sourced by scripts: build_jobs prints how many compilers may run at once: one a core, and 2 GiB of memory for each.
build_jobs() {
    local cores gib
    cores=$(nproc)
    gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
    echo $((gib / 2 < 1 ? 1 : gib / 2 < cores ? gib / 2 : cores))
}
