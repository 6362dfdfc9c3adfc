import CDRM
import Glibc

/// A card of the amdgpu driver, open through its render node. The kernel answers one call at a time; whoever calls
/// must be ready to wait.
@safe final class AMDGPUDevice: Sendable {
    // Immutable, and libdrm locks what the handle holds.
    private nonisolated(unsafe) let handle: OpaquePointer

    /// Opens the card; wakes a sleeping one.
    init(renderNode: String) throws(SensorFault) {
        var opened: OpaquePointer?
        let code = unsafe cdrm_amdgpu_open(renderNode, &opened)
        guard code == 0, let opened = unsafe opened else { throw Self.fault(code) }
        unsafe handle = opened
    }

    deinit { unsafe cdrm_amdgpu_close(handle) }

    struct Facts {
        /// Nil when libdrm does not know the chip.
        let name: String?
        let isIntegrated: Bool
        let maxCoreClock: Double
    }

    func facts() throws(SensorFault) -> Facts {
        var facts = cdrm_amdgpu_facts()
        let code = unsafe cdrm_amdgpu_facts(handle, &facts)
        guard code == 0 else { throw Self.fault(code) }
        return Facts(
            name: text(of: facts.name).trimmed,
            isIntegrated: facts.is_integrated != 0,
            maxCoreClock: Double(facts.max_core_clock_hz)
        )
    }

    /// One of the driver's numbers; see the C header for units.
    func value(_ which: cdrm_amdgpu_value) throws(SensorFault) -> UInt32 {
        var value: UInt32 = 0
        let code = unsafe cdrm_amdgpu_value(handle, which, &value)
        guard code == 0 else { throw Self.fault(code) }
        return value
    }

    /// Bytes of VRAM.
    func vram() throws(SensorFault) -> (total: UInt64, used: UInt64) {
        var (total, used): (UInt64, UInt64) = (0, 0)
        let code = unsafe cdrm_amdgpu_vram(handle, &total, &used)
        guard code == 0 else { throw Self.fault(code) }
        return (total, used)
    }

    /// The driver answers EINVAL or EOPNOTSUPP for what a card does not have.
    private static func fault(_ code: Int32) -> SensorFault {
        code == EINVAL || code == EOPNOTSUPP ? .unsupported : .system(code)
    }
}
