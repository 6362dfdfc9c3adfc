/// Writing to streams.
extension JetStream {
    /// Publishes to whatever stream takes the subject and waits for its answer.
    ///
    /// - Parameters:
    ///   - messageID: the server stores one message of an id within the stream's duplicate window. Ids of all subjects
    ///     of a stream share one space.
    ///   - expectedLastSubjectSequence: store only if the last message of the subject is at this sequence; 0 for
    ///     "there is none".
    package func publish(
        _ payload: [UInt8],
        to subject: String,
        messageID: String? = nil,
        expectedLastSubjectSequence: UInt64? = nil,
        headers: NATSHeaders = [:]
    ) async -> PublishOutcome {
        await withCheckedContinuation { continuation in
            publish(
                payload,
                to: subject,
                messageID: messageID,
                expectedLastSubjectSequence: expectedLastSubjectSequence,
                headers: headers
            ) { continuation.resume(returning: $0) }
        }
    }

    /// The same without a task per message: for pipelines of many publishes.
    ///
    /// - Parameter completion: called exactly once, on a thread that must not be blocked; possibly before this returns.
    package func publish(
        _ payload: [UInt8],
        to subject: String,
        messageID: String? = nil,
        expectedLastSubjectSequence: UInt64? = nil,
        headers: NATSHeaders = [:],
        completion: @escaping @Sendable (PublishOutcome) -> Void
    ) {
        var block = HeaderBlock()
        do {
            if let messageID { try block.add("Nats-Msg-Id", messageID) }
            if let sequence = expectedLastSubjectSequence { block.add("Nats-Expected-Last-Subject-Sequence", sequence) }
            try block.add(headers)
        } catch {
            return completion(.refused(JetStreamAPIError(notSent: error)))
        }
        connection.ask(payload, to: subject, block, "publish", deadline: deadline) { answer in
            switch answer {
            case .success(let message): completion(PubAckScanner.outcome(of: message, subject: subject))
            case .failure(let error) where error.isLocalRefusal:
                completion(.refused(JetStreamAPIError(notSent: error)))
            case .failure(let error): completion(.unknown(error))
            }
        }
    }

    /// Publishes, and sends the identical write again after every unknown outcome, waiting for the connection in
    /// between, until the server has said yes or no.
    ///
    /// Without a message id or an expected sequence a repetition may store the message twice.
    ///
    /// - Parameter first: what the write came to when it was already sent once.
    /// - Returns: `unknown` only when `until` has passed, the connection was closed or the task was cancelled.
    package func publishUntilDefinite(
        _ payload: [UInt8],
        to subject: String,
        messageID: String? = nil,
        expectedLastSubjectSequence: UInt64? = nil,
        headers: NATSHeaders = [:],
        after first: PublishOutcome? = nil,
        until: ContinuousClock.Instant
    ) async -> PublishOutcome {
        var retry = RetryPace(until: until)
        var earlier = first
        while true {
            let outcome: PublishOutcome
            if let sent = earlier.take() {
                outcome = sent
            } else {
                outcome = await publish(
                    payload,
                    to: subject,
                    messageID: messageID,
                    expectedLastSubjectSequence: expectedLastSubjectSequence,
                    headers: headers
                )
            }
            guard case .unknown(let error) = outcome else { return outcome }
            if let final = await retry.wait(after: error, for: connection) { return .unknown(final) }
        }
    }

    /// Moves a record by compare-and-set, to the end.
    ///
    /// An unknown outcome is resolved: the identical write is sent again, and when the server then says "wrong last
    /// sequence" the record is read. If it is ours, the first write had been stored and only its answer was lost.
    ///
    /// - Parameters:
    ///   - stream: the stream that holds the subject, for reading it back.
    ///   - expected: the sequence that the record is at; 0 if there is none.
    ///   - isOurs: whether a record is the one that this call writes, by its content.
    ///   - first: what the write came to when it was already sent once.
    package func compareAndSet(
        _ payload: [UInt8],
        to subject: String,
        stream: String,
        expected: UInt64,
        headers: NATSHeaders = [:],
        isOurs: @Sendable (StoredMessage) -> Bool,
        after first: PublishOutcome? = nil,
        until: ContinuousClock.Instant
    ) async -> CompareAndSetOutcome {
        let outcome = await publishUntilDefinite(
            payload,
            to: subject,
            expectedLastSubjectSequence: expected,
            headers: headers,
            after: first,
            until: until
        )
        switch outcome {
        case .stored(let ack): return .stored(sequence: ack.sequence)
        case .unknown(let error): return .unknown(error)
        case .refused(let error) where !error.isWrongLastSequence: return .refused(error)
        case .refused: break
        }
        var retry = RetryPace(until: until)
        while true {
            do {
                guard let record = try await lastMessage(stream: stream, subject: subject) else {
                    return .conflict(nil)
                }
                return isOurs(record) ? .stored(sequence: record.sequence) : .conflict(record)
            } catch {
                guard case .unknown(let cause) = error else {
                    return .refused(error.apiError ?? Self.unreadable(subject))
                }
                if let final = await retry.wait(after: cause, for: connection) { return .unknown(final) }
            }
        }
    }

    /// The same for a record whose sequence alone does not tell whose it is: a server that lost its power may have put
    /// the stream back and given the sequence to another revision meanwhile. So nothing is sent again before the record
    /// was read, and then only if what stands at `expected` is the revision that the write was made from.
    ///
    /// - Parameter isBase: whether a record is that revision, by its content.
    package func compareAndSet(
        _ payload: [UInt8],
        to subject: String,
        stream: String,
        expected: UInt64,
        isOurs: @Sendable (StoredMessage) -> Bool,
        isBase: @Sendable (StoredMessage) -> Bool,
        until: ContinuousClock.Instant
    ) async -> CompareAndSetOutcome {
        var retry = RetryPace(until: until)
        var wasSent = false
        while true {
            let failure: NATSError
            let isRepetition = wasSent
            do {
                if wasSent, let record = try await lastMessage(stream: stream, subject: subject) {
                    if isOurs(record) { return .stored(sequence: record.sequence) }
                    guard record.sequence == expected, isBase(record) else { return .conflict(record) }
                } else if wasSent {
                    return .conflict(nil)
                }
                wasSent = true
                switch await publish(payload, to: subject, expectedLastSubjectSequence: expected) {
                case .stored(let ack): return .stored(sequence: ack.sequence)
                // What stands there now tells whether it is a conflict, or an earlier copy was stored after all.
                case .refused(let error) where error.isWrongLastSequence:
                    guard isRepetition else { continue }
                    failure = NATSError(.timeout, "publish", subject: subject, cause: error.description)
                case .refused(let error): return .refused(error)
                case .unknown(let error): failure = error
                }
            } catch {
                guard case .unknown(let cause) = error else {
                    return .refused(error.apiError ?? Self.unreadable(subject))
                }
                failure = cause
            }
            if let final = await retry.wait(after: failure, for: connection) { return .unknown(final) }
        }
    }

    private static func unreadable(_ subject: String) -> JetStreamAPIError {
        JetStreamAPIError(code: 500, errorCode: 0, text: "the record \(subject) cannot be read")
    }
}

/// How a request is repeated whose outcome is unknown: at once after a reconnect, else with growing pauses.
struct RetryPace {
    let until: ContinuousClock.Instant
    private var pause: Duration = .milliseconds(50)

    init(until: ContinuousClock.Instant) { self.until = until }

    /// Waits before the next try. Returns the error to give up with, or nil to try again.
    mutating func wait(after error: NATSError, for connection: NATSConnection) async -> NATSError? {
        let left = until - .now
        if left <= .zero || error.code == .closed { return error }
        do {
            if error.code == .notConnected || error.code == .disconnected {
                try await connection.waitUntilConnected(deadline: left)
            } else {
                // Jitter spreads the repetitions of many clients that failed at one moment.
                try await Task.sleep(for: min(pause * Double.random(in: 0.5...1), left))
                pause = min(pause * 2, .seconds(1))
            }
        } catch let failure as NATSError {
            return failure.code == .timeout ? error : failure
        } catch {
            return NATSError(.cancelled, "publish", cause: "the task was cancelled while the outcome was unknown")
        }
        return ContinuousClock.now < until ? nil : error
    }
}
