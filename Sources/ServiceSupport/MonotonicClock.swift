import Glibc
import JobModel

/// Time for decisions: the wall clock as it stood at the start, plus what has really passed since.
///
/// The kernel's boot clock never jumps and goes on while the machine sleeps, so a lease that ran out during a
/// suspend is seen to have run out.
package struct MonotonicClock: Sendable {
    private let start: Int64
    private let origin: Int64

    package init() {
        start = Self.read(CLOCK_REALTIME)
        origin = Self.read(CLOCK_BOOTTIME)
    }

    package func now() -> Timestamp {
        Timestamp(nanoseconds: start + Self.read(CLOCK_BOOTTIME) - origin)
    }

    /// The same moment on the kernel's boot clock (CLOCK_BOOTTIME), in nanoseconds.
    package func bootTime(of moment: Timestamp) -> Int64 {
        let (nanoseconds, isOverflowing) = moment.nanoseconds.subtractingReportingOverflow(start - origin)
        return isOverflowing ? 0 : max(0, nanoseconds)
    }

    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        unsafe clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
