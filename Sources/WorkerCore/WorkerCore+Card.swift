import JobModel

/// What the state of the card means for its attempts.
extension WorkerCore {
    /// The card may take no new job, or may again.
    ///
    /// Messages that wait go back to their stream, and no more are asked for: there the leader can take them back and
    /// place their jobs elsewhere. A message that was asked for before still comes, and goes back too.
    mutating func cardHeld(_ hold: CardHold?, at now: Timestamp) {
        self.hold = hold
        guard let hold else { return }
        giveBackWaiting()
        guard let code = hold.endsJobs else { return }
        endRunning(because: .givenBack(code, reason: hold.reason), at: now)
        if code == .cardFailed { excuseFailed(hold.reason) }
    }

    /// The card had a fault that spoils what runs on it, and may be used again.
    mutating func cardFailed(_ reason: String, at now: Timestamp) {
        endRunning(because: .givenBack(.cardFailed, reason: reason), at: now)
        excuseFailed(reason)
    }

    /// What has failed just before a fault of the card was seen has failed by it.
    private mutating func excuseFailed(_ reason: String) {
        for id in attempts.values.filter({ $0.phase == .examining }).map(\.id) {
            attempts[id]?.stop = .givenBack(.cardFailed, reason: reason)
        }
    }

    /// Ends every attempt whose process has been started, in the order of their arrival.
    mutating func endRunning(because cause: Attempt.StopCause, at now: Timestamp) {
        let started = attempts.values.filter { $0.phase == .starting || $0.phase == .running }
        for attempt in started.sorted(by: { $0.number < $1.number }) { end(attempt.id, because: cause, at: now) }
    }

    /// Attempts that were not claimed are the leader's to place again.
    mutating func giveBackWaiting() {
        for attempt in attempts.values.filter(\.isHeld).sorted(by: { $0.number < $1.number }) {
            attempts[attempt.id] = nil
            if let token = attempt.token { actions.append(.nak(token, delay: .zero)) }
        }
    }

    // MARK: requests

    mutating func cancelAsked(_ job: JobID, _ id: AttemptID, _ token: RequestToken, at now: Timestamp) {
        endAsked(job, id, because: .cancelled, token, at: now)
    }

    mutating func evictAsked(
        _ job: JobID,
        _ id: AttemptID,
        _ code: FailureCode,
        _ reason: String,
        _ token: RequestToken,
        at now: Timestamp
    ) {
        let words = reason.isEmpty ? "taken off the card by the leading maestro" : reason
        endAsked(job, id, because: .givenBack(code, reason: words), token, at: now)
    }

    private mutating func endAsked(
        _ job: JobID,
        _ id: AttemptID,
        because cause: Attempt.StopCause,
        _ token: RequestToken,
        at now: Timestamp
    ) {
        guard let attempt = attempts[id], attempt.job == job, attempt.isOurs else {
            return actions.append(.reply(token, .refused("this worker does not run attempt \(id) of job \(job)")))
        }
        actions.append(.reply(token, .done))
        end(id, because: cause, at: now)
    }

    /// One probe at a time: it asks the driver, and may run a program.
    mutating func probeAsked(_ token: RequestToken) {
        guard prober == nil else {
            return actions.append(.reply(token, .refused("a probe of this card is under way; ask again")))
        }
        prober = token
        actions.append(.probe)
    }

    mutating func probeEnded(_ answer: WorkerAnswer) {
        guard let token = prober else { return }
        prober = nil
        actions.append(.reply(token, answer))
    }
}
