import Glibc

/// Why a sensor has no value now.
package enum SensorFault: Error, Sendable, Equatable, CustomStringConvertible {
    /// The driver has no such sensor on this card: nothing is wrong.
    case unsupported
    /// The card sleeps, and reading would wake it.
    case asleep
    /// The kernel refused: an errno.
    case system(Int32)
    /// NVIDIA's library refused: its return code, with its words.
    case nvml(Int32, String)
    /// What was read is no value: what it was, shortened.
    case malformed(String)
    /// What was read is a value that this sensor cannot have: the value.
    case implausible(Double)
    /// The read did not come back in time.
    case timedOut

    /// A short, stable name for counting: `EIO`, `nvml_15`, `timed_out`.
    package var code: String {
        switch self {
        case .unsupported: "unsupported"
        case .asleep: "asleep"
        case .system(let number): Self.name(ofErrno: number)
        case .nvml(let code, _): "nvml_\(code)"
        case .malformed: "malformed"
        case .implausible: "implausible"
        case .timedOut: "timed_out"
        }
    }

    /// Whether something went wrong, so that it is worth counting.
    package var isError: Bool { self != .unsupported && self != .asleep }

    /// What a card says that sleeps or is being reset; it does not mean that the sensor is broken.
    package var isTransient: Bool {
        switch self {
        case .asleep: true
        case .system(let number): number == EPERM || number == EBUSY || number == EAGAIN
        default: false
        }
    }

    package var description: String {
        switch self {
        case .unsupported: "the driver has no such sensor for this card"
        case .asleep: "the card sleeps"
        case .system(let number): Self.text(ofErrno: number)
        case .nvml(let code, let text): "NVML: \(text) (\(code))"
        case .malformed(let text): "not a value: \"\(text)\""
        case .implausible(let value): "cannot be true: \(value)"
        case .timedOut: "no answer in time"
        }
    }

    /// The system's words for an errno, with its name.
    static func text(ofErrno number: Int32) -> String {
        // strerror is thread-safe in glibc since 2.32.
        guard let text = unsafe strerror(number) else { return name(ofErrno: number) }
        return unsafe "\(String(cString: text)) (\(name(ofErrno: number)))"
    }

    private static func name(ofErrno number: Int32) -> String {
        switch number {
        case EPERM: "EPERM"
        case ENOENT: "ENOENT"
        case EIO: "EIO"
        case ENXIO: "ENXIO"
        case EAGAIN: "EAGAIN"
        case ENOMEM: "ENOMEM"
        case EACCES: "EACCES"
        case EBUSY: "EBUSY"
        case ENODEV: "ENODEV"
        case ENOTDIR: "ENOTDIR"
        case EINVAL: "EINVAL"
        case EMFILE: "EMFILE"
        case ENODATA: "ENODATA"
        case ETIME: "ETIME"
        case EOPNOTSUPP: "EOPNOTSUPP"
        case ETIMEDOUT: "ETIMEDOUT"
        case ECANCELED: "ECANCELED"
        default: "errno_\(number)"
        }
    }
}
