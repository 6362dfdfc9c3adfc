/// A JetStream stream on one server, as far as this system uses one: a value without I/O or clock.
///
/// What it answers is compared with real servers, operation by operation (`StreamConformanceTests`). Times are the
/// server's, in nanoseconds.
package struct StreamModel<Body: Sendable>: Sendable {
    package struct Configuration: Sendable {
        package var name: String
        package var subjects: [SubjectPattern]
        /// A message goes when it is acknowledged.
        package var isWorkQueue = false
        /// A full stream refuses; else it drops its oldest messages.
        package var discardsNew = true
        package var maxPerSubject: Int?
        package var maxMessages: Int?
        /// How long a message id is remembered.
        package var duplicateWindow: Int64 = 120_000_000_000

        package init(name: String, subjects: [String]) {
            self.name = name
            self.subjects = subjects.map { SubjectPattern($0) }
        }
    }

    package struct Message: Sendable {
        package let subject: String
        package let sequence: UInt64
        package let timestamp: Int64
        package let messageID: String?
        package let body: Body
    }

    /// What a publish is answered.
    package enum Answer: Equatable, Sendable {
        case stored(sequence: UInt64, isDuplicate: Bool)
        /// 10071: the subject's last message is not where the publisher expects it.
        case wrongLastSequence
        /// 10077: the stream is full, or its server can store nothing.
        case full
    }

    /// One change of what is stored, so that a crash can take it back.
    private enum Change: Sendable {
        case stored(UInt64, at: Int64, displaced: [Message])
        case removed(Message, at: Int64)
    }

    package let configuration: Configuration
    /// In the order of their sequences.
    package private(set) var messages: [Message] = []
    package private(set) var lastSequence: UInt64 = 0
    /// Nothing can be stored: the disk is full.
    package var isOutOfSpace = false
    private var bySubject: [String: [UInt64]] = [:]
    private var identifiers: [String: (sequence: UInt64, time: Int64)] = [:]
    /// What happened since the last sync, oldest first.
    private var unsynced: [Change] = []

    package init(_ configuration: Configuration) { self.configuration = configuration }

    package func takes(_ subject: String) -> Bool { configuration.subjects.contains { $0.matches(subject) } }

    // MARK: storing

    package mutating func publish(
        _ body: Body,
        to subject: String,
        messageID: String? = nil,
        expected: UInt64? = nil,
        at now: Int64
    ) -> Answer {
        if let messageID, let known = identifiers[messageID], now - known.time < configuration.duplicateWindow {
            return .stored(sequence: known.sequence, isDuplicate: true)
        }
        if let expected, expected != bySubject[subject]?.last ?? 0 { return .wrongLastSequence }
        if isOutOfSpace { return .full }
        var displaced: [Message] = []
        if let limit = configuration.maxPerSubject, let standing = bySubject[subject], standing.count >= limit {
            displaced += standing.prefix(standing.count - limit + 1).compactMap { message(at: $0) }
        } else if let limit = configuration.maxMessages, messages.count >= limit {
            if configuration.discardsNew { return .full }
            displaced += messages.prefix(messages.count - limit + 1)
        }
        for message in displaced { erase(message) }
        lastSequence += 1
        append(
            Message(subject: subject, sequence: lastSequence, timestamp: now, messageID: messageID, body: body)
        )
        unsynced.append(.stored(lastSequence, at: now, displaced: displaced))
        return .stored(sequence: lastSequence, isDuplicate: false)
    }

    /// Removes a message, by a request or because it was acknowledged. False if there is none.
    package mutating func remove(_ sequence: UInt64, at now: Int64) -> Bool {
        guard let message = message(at: sequence) else { return false }
        erase(message)
        unsynced.append(.removed(message, at: now))
        return true
    }

    private mutating func append(_ message: Message) {
        messages.append(message)
        bySubject[message.subject, default: []].append(message.sequence)
        if let id = message.messageID { identifiers[id] = (message.sequence, message.timestamp) }
    }

    private mutating func erase(_ message: Message) {
        if let index = index(of: message.sequence) { messages.remove(at: index) }
        bySubject[message.subject]?.removeAll { $0 == message.sequence }
        if bySubject[message.subject]?.isEmpty == true { bySubject[message.subject] = nil }
    }

    // MARK: reading

    package func message(at sequence: UInt64) -> Message? { index(of: sequence).map { messages[$0] } }

    package func last(of subject: String) -> Message? {
        bySubject[subject]?.last.flatMap { message(at: $0) }
    }

    /// The last message whose subject matches.
    package func last(matching pattern: SubjectPattern) -> Message? {
        messages.last { pattern.matches($0.subject) }
    }

    /// The first message at or after a sequence whose subject matches.
    package func next(from sequence: UInt64, matching pattern: SubjectPattern) -> Message? {
        messages[insertionIndex(of: sequence)...].first { pattern.matches($0.subject) }
    }

    /// How many matching messages stand at or after a sequence.
    package func count(from sequence: UInt64, matching pattern: SubjectPattern) -> Int {
        messages[insertionIndex(of: sequence)...].count { pattern.matches($0.subject) }
    }

    private func insertionIndex(of sequence: UInt64) -> Int {
        var low = 0
        var high = messages.count
        while low < high {
            let middle = (low + high) / 2
            if messages[middle].sequence < sequence { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func index(of sequence: UInt64) -> Int? {
        let index = insertionIndex(of: sequence)
        return index < messages.count && messages[index].sequence == sequence ? index : nil
    }

    // MARK: crashes

    /// Everything so far is on the disk for good.
    package mutating func sync() { unsynced.removeAll(keepingCapacity: true) }

    /// Changes that a power cut could take back.
    package var unsyncedChanges: Int { unsynced.count }

    /// The server process was killed and is started again. No stored message is lost, but removals of the last moment
    /// may come undone, and the ids of removed messages are forgotten.
    /// - Parameters:
    ///   - horizon: removals since then are at risk.
    ///   - isUndone: asked for each of them.
    package mutating func restart(undoingRemovalsSince horizon: Int64, isUndone: () -> Bool) {
        var back: [Message] = []
        unsynced = unsynced.filter { change in
            guard case .removed(let message, let time) = change, time >= horizon, isUndone() else { return true }
            back.append(message)
            return false
        }
        for message in back { restore(message) }
        rememberIdentifiers()
    }

    /// The power was cut: the newest changes are as if they had never been made, also the sequences they were given.
    package mutating func rollBack(changes count: Int) {
        for change in unsynced.suffix(count).reversed() {
            switch change {
            case .removed(let message, _): restore(message)
            case .stored(let sequence, _, let displaced):
                if let message = message(at: sequence) { erase(message) }
                for message in displaced { restore(message) }
                lastSequence = sequence - 1
            }
        }
        unsynced.removeLast(min(count, unsynced.count))
        rememberIdentifiers()
    }

    private mutating func restore(_ message: Message) {
        guard index(of: message.sequence) == nil else { return }
        messages.insert(message, at: insertionIndex(of: message.sequence))
        let standing = bySubject[message.subject, default: []]
        let place = standing.firstIndex { $0 > message.sequence } ?? standing.endIndex
        bySubject[message.subject, default: []].insert(message.sequence, at: place)
        enforceSubjectLimit(message.subject)
    }

    private mutating func enforceSubjectLimit(_ subject: String) {
        guard let limit = configuration.maxPerSubject else { return }
        while let standing = bySubject[subject], standing.count > limit, let oldest = message(at: standing[0]) {
            erase(oldest)
        }
    }

    /// A server that starts knows only the ids of the messages it still holds.
    private mutating func rememberIdentifiers() {
        identifiers = [:]
        for message in messages {
            if let id = message.messageID { identifiers[id] = (message.sequence, message.timestamp) }
        }
    }
}
