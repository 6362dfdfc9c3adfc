/// A point in time as a decision core sees it: nanoseconds since 1970, from a clock that never jumps.
///
/// A shell reads the wall clock once at its start and adds what its monotonic clock measured since, so that
/// differences are real durations and the value is still fit for a person. Values of different hosts are never
/// compared.
package struct Timestamp: Sendable, Hashable, Comparable {
    package var nanoseconds: Int64

    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// Seconds since 1970 with fractions, as the messages on the bus carry time.
    package var seconds: Double { Double(nanoseconds) / 1e9 }

    package static func < (a: Timestamp, b: Timestamp) -> Bool { a.nanoseconds < b.nanoseconds }

    /// Saturates instead of overflowing, so that an absurd delay means "never".
    package static func + (time: Timestamp, duration: Duration) -> Timestamp {
        let (sum, overflow) = time.nanoseconds.addingReportingOverflow(duration.wholeNanoseconds)
        guard overflow else { return Timestamp(nanoseconds: sum) }
        return Timestamp(nanoseconds: duration < .zero ? .min : .max)
    }

    package static func - (a: Timestamp, b: Timestamp) -> Duration {
        let (difference, overflow) = a.nanoseconds.subtractingReportingOverflow(b.nanoseconds)
        return .nanoseconds(overflow ? (a < b ? .min : .max) : difference)
    }
}

extension Duration {
    /// The duration in nanoseconds, saturated to what 64 bits hold (292 years).
    package var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        guard !overflow else { return seconds < 0 ? .min : .max }
        let (sum, overflowed) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
        return overflowed ? (seconds < 0 ? .min : .max) : sum
    }

    /// The duration in seconds with fractions.
    package var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds) / 1e18
    }

    /// A duration of whole nanoseconds from seconds with fractions; the value must be finite. Above 48 days, where a
    /// `Double` of seconds does not tell nanoseconds apart, of whole microseconds: so ``inSeconds`` of it, read again, is
    /// the same duration.
    package static func inSeconds(_ seconds: Double) -> Duration {
        if seconds.magnitude >= 0x1p22, let microseconds = Int64(exactly: (seconds * 1e6).rounded()),
            microseconds.magnitude < 1 << 50
        {
            return .microseconds(microseconds)
        }
        let nanoseconds = (seconds * 1e9).rounded()
        return .nanoseconds(Int64(exactly: nanoseconds) ?? (seconds < 0 ? .min : .max))
    }
}
