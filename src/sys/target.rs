//! Name of the machine that this program is built for, as in `cross/targets.tsv`.

/// Returns the target triple.
pub fn target() -> String {
    let little = cfg!(target_endian = "little");
    let hard_float = cfg!(target_abi = "eabihf");
    let arch = match std::env::consts::ARCH {
        "x86" => "i686",
        "arm" if hard_float => "armv7",
        "arm" => "armv5te",
        "mips" if little => "mipsel",
        "mips64" if little => "mips64el",
        "powerpc64" if little => "powerpc64le",
        "riscv64" => "riscv64gc",
        other => other,
    };
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let abi = match std::env::consts::ARCH {
        "arm" if hard_float => "eabihf",
        "arm" => "eabi",
        "mips64" => "abi64",
        _ => "",
    };
    format!("{arch}-unknown-linux-{libc}{abi}")
}
