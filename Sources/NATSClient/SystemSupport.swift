import Glibc

extension Duration {
    /// Rounded up, and at least 1: the C library takes 0 for "no limit" in some places and refuses it in others.
    var wholeMilliseconds: Int64 {
        let (seconds, attoseconds) = components
        return max(1, seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    /// Whole nanoseconds, for the fields of the JetStream API and for timers; 0 for a negative duration, and no more
    /// than a hundred years.
    var wholeNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        if seconds < 0 || attoseconds < 0 { return 0 }
        return UInt64(min(seconds, 3_153_600_000)) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }
}

/// Nanoseconds on the clock that never goes back.
enum MonotonicClock {
    static var now: UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// Random text for inboxes and consumer names.
enum RandomToken {
    private static let digits = Array("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".utf8)

    /// One subject token of base-62 digits; 22 of them carry 130 random bits.
    static func make(length: Int = 22) -> String {
        var generator = SystemRandomNumberGenerator()
        return String(
            decoding: (0..<length).map { _ in digits[Int.random(in: 0..<62, using: &generator)] },
            as: UTF8.self
        )
    }
}
