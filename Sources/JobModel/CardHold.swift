import WireJSON

/// Why a worker takes no new job for its card now, as `hold` in `gpu.worker.metrics`.
package struct CardHold: Sendable, Equatable {
    /// One of ``Code``, or what a newer worker says: a code that is not known holds the card all the same.
    package let code: String
    /// For a person.
    package let reason: String

    package enum Code: String, Sendable, CaseIterable {
        /// At or above the temperature where placing stops.
        case hot
        /// Was hot, and has not been cool for long enough.
        case cooling
        /// So hot that running jobs were ended.
        case overheated
        /// The temperature is not known.
        case sensor
        /// A sign of sickness was seen, and no probe has succeeded since.
        case unhealthy
    }

    package init(_ code: Code, reason: String) {
        self.code = code.rawValue
        self.reason = reason
    }

    /// Nil for what is no object with a code.
    package init?(_ json: JSON) {
        guard let code = json["code"]?.stringValue, !code.isEmpty else { return nil }
        self.code = code
        reason = json["reason"]?.stringValue ?? ""
    }

    package var json: JSON { ["code": .string(code), "reason": .string(reason)] }

    /// The failure with which a running attempt ends when this hold begins; nil when it may go on.
    package var endsJobs: FailureCode? {
        switch Code(rawValue: code) {
        case .overheated: .overheated
        case .unhealthy: .cardFailed
        case .hot, .cooling, .sensor, nil: nil
        }
    }
}
