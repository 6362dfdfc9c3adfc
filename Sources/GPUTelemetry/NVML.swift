import CNVML
import Glibc

/// A return code of NVML that says more than "this value is not to be had".
package enum NVMLStatus {
    package static let notFound: Int32 = 6
    package static let notSupported: Int32 = 3
    package static let noPermission: Int32 = 4
    package static let timeout: Int32 = 10
    package static let gpuIsLost: Int32 = 15
    package static let resetRequired: Int32 = 16
    package static let versionMismatch: Int32 = 18
}

/// Why NVML cannot be used at all.
package struct NVMLUnavailable: Error, Sendable, CustomStringConvertible {
    /// NVML's code; nil when the library cannot be loaded.
    package let code: Int32?
    package let reason: String
    package var description: String { code.map { "\(reason) (NVML \($0))" } ?? reason }

    /// What that means for a sensor.
    var fault: SensorFault { code.map { .nvml($0, reason) } ?? .unsupported }
}

/// NVIDIA's management library, loaded and initialized. Its functions are safe to call from any thread.
@safe final class NVML: Sendable {
    static let libraryName = "libnvidia-ml.so.1"

    // Immutable; NVML guards its own state.
    fileprivate nonisolated(unsafe) let library: OpaquePointer

    init() throws(NVMLUnavailable) {
        var opened: OpaquePointer?
        var message = [CChar](repeating: 0, count: 256)
        let code = unsafe cnvml_open(Self.libraryName, &opened, &message, message.count)
        guard code == 0, let opened = unsafe opened else {
            throw NVMLUnavailable(code: code > 0 ? code : nil, reason: text(message))
        }
        unsafe library = opened
    }

    deinit { unsafe cnvml_close(library) }

    /// The version of NVIDIA's driver; nil when it does not tell.
    func driverVersion() -> String? {
        var version = [CChar](repeating: 0, count: 81)
        let code = unsafe cnvml_driver_version(library, &version, version.count)
        return code == 0 ? text(version).trimmed : nil
    }

    /// Finds a card by its PCI address; wakes it and keeps it awake.
    func device(at address: PCIAddress) throws(SensorFault) -> NVMLDevice {
        var handle: OpaquePointer?
        let code = unsafe cnvml_device(library, "0000\(address)", &handle)
        guard code == 0, let handle = unsafe handle else { throw fault(code) }
        return unsafe NVMLDevice(library: self, handle: handle)
    }

    fileprivate func fault(_ code: Int32) -> SensorFault {
        if code == CNVML_NO_SYMBOL || code == NVMLStatus.notSupported { return .unsupported }
        return unsafe .nvml(code, String(cString: cnvml_error_text(library, code)))
    }
}

/// One card as NVML knows it.
@safe final class NVMLDevice: Sendable {
    private let nvml: NVML
    // Immutable; valid as long as the library, which is held here, is open.
    private nonisolated(unsafe) let handle: OpaquePointer

    fileprivate init(library: NVML, handle: OpaquePointer) {
        nvml = library
        unsafe self.handle = handle
    }

    func text(_ which: cnvml_text) throws(SensorFault) -> String {
        var characters = [CChar](repeating: 0, count: 97)
        let code = unsafe cnvml_text(nvml.library, handle, which, &characters, characters.count)
        guard code == 0 else { throw nvml.fault(code) }
        guard let value = GPUTelemetry.text(characters).trimmed else { throw .malformed("") }
        return value
    }

    /// One of NVML's numbers; see the C header for units.
    func value(_ which: cnvml_value) throws(SensorFault) -> UInt64 {
        var value: UInt64 = 0
        let code = unsafe cnvml_value(nvml.library, handle, which, &value)
        guard code == 0 else { throw nvml.fault(code) }
        return value
    }

    /// Bytes of VRAM.
    func vram() throws(SensorFault) -> (total: UInt64, used: UInt64) {
        var (total, used): (UInt64, UInt64) = (0, 0)
        let code = unsafe cnvml_vram(nvml.library, handle, &total, &used)
        guard code == 0 else { throw nvml.fault(code) }
        return (total, used)
    }

    /// The least and the most that ``setPowerLimit(_:)`` takes, in milliwatt.
    func powerLimits() throws(SensorFault) -> ClosedRange<UInt64> {
        var (least, most): (UInt64, UInt64) = (0, 0)
        let code = unsafe cnvml_power_limits(nvml.library, handle, &least, &most)
        guard code == 0 else { throw nvml.fault(code) }
        guard least <= most else { throw .implausible(Double(least)) }
        return least...most
    }

    /// Sets the limit of the card's power, in milliwatt.
    func setPowerLimit(_ milliwatts: UInt64) throws(SensorFault) {
        let code = unsafe cnvml_set_power_limit(nvml.library, handle, milliwatts)
        guard code == 0 else { throw nvml.fault(code) }
    }

    /// The processes that compute on the card; more than 256 are cut.
    func processes() throws(SensorFault) -> [(pid: Int32, vram: UInt64?)] {
        var found = [cnvml_process](repeating: cnvml_process(), count: 256)
        var count = UInt32(found.count)
        let code = unsafe cnvml_processes(nvml.library, handle, &found, &count)
        guard code == 0 else { throw nvml.fault(code) }
        return found.prefix(Int(count)).map { (Int32(bitPattern: $0.pid), $0.vram == .max ? nil : $0.vram) }
    }

    /// Begins to collect XID events.
    func watchXIDs() throws(SensorFault) {
        let code = unsafe cnvml_watch_xids(nvml.library, handle)
        guard code == 0 else { throw nvml.fault(code) }
    }

    /// The XIDs since the last call, without waiting; at most 64, so that a storm does not hold the thread.
    func takeXIDs() throws(SensorFault) -> [UInt64] {
        var xids: [UInt64] = []
        while xids.count < 64 {
            var xid: UInt64 = 0
            let code = unsafe cnvml_next_xid(nvml.library, &xid)
            if code == NVMLStatus.timeout { break }
            guard code == 0 else { throw nvml.fault(code) }
            xids.append(xid)
        }
        return xids
    }
}
