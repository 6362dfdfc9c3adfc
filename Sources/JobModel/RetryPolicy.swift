/// When a failed attempt is followed by another.
package enum RetryPolicy {
    /// Longest backoff.
    package static let maximumDelay = Duration.seconds(300)

    /// The backoff before the next attempt, or nil when none is left.
    ///
    /// The delay doubles with each failure and varies by a fifth either way, so that jobs which failed together do
    /// not come back together.
    /// - Parameters:
    ///   - failures: attempts that failed by themselves, the last one included; at least 1.
    ///   - chance: a number in 0 ..< 1.
    package static func delay(afterFailure failures: Int, limits: JobLimits, chance: Double) -> Duration? {
        guard failures <= limits.maxRetries else { return nil }
        let doublings = min(max(failures - 1, 0), 20)
        let delay = limits.retryBackoff * Double(1 << doublings)
        return min(delay, maximumDelay) * (0.8 + 0.4 * chance)
    }

    /// Whether another attempt could end otherwise: a cancel, a forbidden task and a malformed one stay what they are.
    package static func isRetryable(_ code: FailureCode) -> Bool {
        switch code {
        case .exit, .signal, .timeout, .spawn, .workerFault: true
        case .lost, .cancelled, .drained, .overheated, .cardFailed, .fenced, .badTask, .forbidden, .idConflict,
            .tooOld, .waitedTooLong, .tooManyJobs, .notDispatched:
            false
        }
    }

    /// The step that ends a running attempt which failed by itself.
    /// - Parameter record: the record in state running; its `tries` counts the attempt.
    package static func transition(
        for outcome: AttemptOutcome,
        of record: JobRecord,
        chance: Double
    ) -> JobTransition {
        guard let code = outcome.code else { return .finish(outcome) }
        if code == .cancelled { return .cancel(reason: outcome.reason, outcome) }
        guard isRetryable(code), let delay = delay(afterFailure: record.failures, limits: record.limits, chance: chance)
        else { return .fail(outcome) }
        return .retry(outcome, delay: delay)
    }
}
