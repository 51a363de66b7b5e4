//! What must hold for any bytes at all. Run by the fuzz targets on new inputs and by the tests on kept ones.

use trace::{Settings, Trace};

/// Opens the bytes as a trace, reads all of it and compares it with itself: either an error or sound values.
pub fn read_everything(bytes: &[u8]) -> Result<(), trace::Error> {
    let trace = Trace::from_bytes("input", bytes.to_vec())?;
    for name in trace.names() {
        let info = trace.info(name).expect("a listed point has a shape");
        let tensor = trace.get(name)?;
        assert_eq!(tensor.shape, info.shape, "{name}");
        assert_eq!(tensor.values.len(), info.shape.iter().product::<usize>(), "{name}");
    }
    let report = trace::compare(&trace, &trace, &Settings::default())?;
    for point in &report.points {
        let stats = point.stats.as_ref();
        let finite = stats.is_some_and(|s| s.nonfinite_reference == 0 && s.nmse.is_finite());
        assert!(point.within_limit || point.fault.is_some() || !finite, "{} differs from itself", point.name);
    }
    Ok(())
}
