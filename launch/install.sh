# Sourced by launch/demo and launch/test: installs the Debian or Ubuntu packages that are missing.
# usage: install_packages NAME...

build_packages=(gcc cmake ninja-build ccache pkg-config
    libgrpc-dev libprotobuf-dev protobuf-compiler libprotobuf-c-dev protobuf-c-compiler
    libopenmpi-dev openmpi-bin libopenblas-dev libjansson-dev libpcre2-dev libutf8proc-dev
    libpopt-dev libssl-dev libcmocka-dev)
test_packages=(clang clang-format clang-tidy python3 python3-grpcio python3-protobuf protobuf-compiler-grpc)

install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        root=(sudo)
    fi
    echo "installing with apt-get: ${missing[*]}"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# clang's sanitizer and fuzzer runtimes are a package of their own, named after its version.
install_clang_runtime() {
    local version
    version=$(clang --version | sed -nE '1s/.*version ([0-9]+)\..*/\1/p')
    install_packages "libclang-rt-$version-dev"
}
