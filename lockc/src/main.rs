use lockc::bpf::{Kernel, maps::Maps, self_test};

fn main() -> anyhow::Result<()> {
    lockc::bpf::host::check()?;
    std::fs::create_dir_all("/run/lockc")?;
    let mut kernel = Kernel::load()?;
    let maps = Maps::take(&mut kernel)?;
    self_test::run(&kernel, &maps, std::path::Path::new("/run/lockc"))?;
    kernel.retire_others()?;
    println!("ok {:?}", maps.sizes());
    Ok(())
}
