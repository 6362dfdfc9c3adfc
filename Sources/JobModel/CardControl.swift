import WireJSON

/// What people and the leader have decided about a card, stored at `gpu.ctl.card-<gpu>`: written by the leading maestro
/// alone, and read by each leader after it. A card without such a record has nothing against it.
package struct CardControl: Sendable, Equatable {
    package var gpu: GPUID
    /// Set by a person: the card gets no job.
    package var cordon: Cordon?
    /// The cordon is to empty the card, by force when the time has come.
    package var drain: Drain?
    package var quarantine: Quarantine?
    /// After a quarantine, or a sign of sickness: one job at a time, until the card has shown that it works.
    package var probation: Probation?
    package var op: OperationID
    /// Fields that this version does not know.
    package private(set) var extra: JSONObject

    package struct Cordon: Sendable, Equatable {
        package var reason: String
        /// Seconds since 1970 by the writer's clock: for people.
        package var since: Double

        package init(reason: String, since: Double) {
            self.reason = reason
            self.since = since
        }
    }

    package struct Drain: Sendable, Equatable {
        package var reason: String
        /// How long after this record was stored running attempts are taken from the card; nil waits for their ends.
        package var delay: Duration?
        /// When that is, in seconds since 1970 by the writer's clock: for people.
        package var deadline: Double?

        package init(reason: String, delay: Duration?, deadline: Double?) {
            self.reason = reason
            self.delay = delay
            self.deadline = deadline
        }
    }

    package struct Quarantine: Sendable, Equatable {
        package var kind: Kind
        package var reason: String
        /// What was seen, for a person.
        package var evidence: String
        /// Seconds since 1970 by the writer's clock: for people.
        package var since: Double
        /// How often the card was quarantined without having shown since that it works; from 1.
        package var strikes: Int
        /// How long after this record was stored the card is probed for the first time.
        package var pause: Duration

        package enum Kind: String, Sendable, CaseIterable {
            /// Its worker saw a sign of sickness.
            case health
            /// Jobs failed on it that succeeded elsewhere.
            case failures
            /// A person said so, and only a person can take it back.
            case `operator`
        }

        package init(kind: Kind, reason: String, evidence: String, since: Double, strikes: Int, pause: Duration) {
            self.kind = kind
            self.reason = reason
            self.evidence = evidence
            self.since = since
            self.strikes = strikes
            self.pause = pause
        }
    }

    package struct Probation: Sendable, Equatable {
        /// Seconds since 1970 by the writer's clock: for people.
        package var since: Double
        /// Those of the quarantine before; 0 when there was none.
        package var strikes: Int

        package init(since: Double, strikes: Int) {
            self.since = since
            self.strikes = strikes
        }
    }

    /// A record that holds nothing against the card.
    package init(gpu: GPUID, op: OperationID) {
        self.gpu = gpu
        self.op = op
        extra = JSONObject()
    }

    /// Nothing speaks against the card.
    package var isEmpty: Bool { cordon == nil && drain == nil && quarantine == nil && probation == nil }
}

// MARK: wire

extension CardControl {
    package func encoded() -> [UInt8] {
        var object = JSONObject([
            ("v", .int(FormatVersion.current)), ("gpu_id", gpu.json), ("op", .string(op.text)),
        ])
        object["cordon"] = cordon?.json
        object["drain"] = drain?.json
        object["quarantine"] = quarantine?.json
        object["probation"] = probation?.json
        for field in extra { object[field.key] = field.value }
        return JSON.object(object).encoded()
    }

    private static let known: Set<String> = ["v", "gpu_id", "op", "cordon", "drain", "quarantine", "probation"]

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let control = try ControlFields(parsing: bytes, as: "control record of a card")
        guard let gpu = control.json["gpu_id"].flatMap({ GPUID($0) }) else {
            throw MalformedMessage("control record of a card", "gpu_id is missing or not a card's id")
        }
        self.init(gpu: gpu, op: control.op)
        if let part = try Part(control.json, "cordon") { cordon = try Cordon(part) }
        if let part = try Part(control.json, "drain") { drain = try Drain(part) }
        if let part = try Part(control.json, "quarantine") { quarantine = try Quarantine(part) }
        if let part = try Part(control.json, "probation") { probation = try Probation(part) }
        for field in control.json.objectValue ?? JSONObject() where !Self.known.contains(field.key) {
            extra[field.key] = field.value
        }
    }
}

/// One of the record's objects while it is read.
private struct Part {
    let name: String
    let json: JSON

    /// Nil for a part that is not there.
    init?(_ record: JSON, _ name: String) throws(MalformedMessage) {
        guard let json = record[name], !json.isNull else { return nil }
        self.name = name
        self.json = json
        guard json.objectValue != nil else { throw fail("must be an object, not \(json.kind)") }
    }

    func fail(_ reason: String) -> MalformedMessage {
        MalformedMessage("control record of a card", "\(name) \(reason)")
    }

    func text(_ key: String) -> String { json[key]?.stringValue ?? "" }

    var since: Double { json["since"]?.doubleValue ?? 0 }

    func strikes(from least: Int) throws(MalformedMessage) -> Int {
        guard let strikes = json["strikes"]?.intValue, (Int64(least)...1_000_000).contains(strikes) else {
            throw fail("must have strikes, a whole number from \(least)")
        }
        return Int(strikes)
    }

    /// Nil for a duration that is not there.
    func duration(_ key: String) throws(MalformedMessage) -> Duration? {
        guard let value = json[key], !value.isNull else { return nil }
        guard let seconds = value.doubleValue, (0...TaskLimits.timeout.upperBound).contains(seconds) else {
            throw fail("has a \(key) that is no number of seconds from 0 to \(Int(TaskLimits.timeout.upperBound))")
        }
        return .inSeconds(seconds)
    }
}

extension CardControl.Cordon {
    fileprivate init(_ part: Part) throws(MalformedMessage) {
        self.init(reason: part.text("reason"), since: part.since)
    }

    package var json: JSON { ["reason": .string(reason), "since": .double(since)] }
}

extension CardControl.Drain {
    fileprivate init(_ part: Part) throws(MalformedMessage) {
        self.init(
            reason: part.text("reason"),
            delay: try part.duration("delay"),
            deadline: part.json["deadline"]?.doubleValue
        )
    }

    package var json: JSON {
        var object = JSONObject([("reason", .string(reason))])
        object["delay"] = delay.map { .double($0.inSeconds) }
        object["deadline"] = deadline.map { .double($0) }
        return .object(object)
    }
}

extension CardControl.Quarantine {
    fileprivate init(_ part: Part) throws(MalformedMessage) {
        guard let kind = Kind(rawValue: part.text("kind")) else {
            throw part.fail("must have a kind: \(Kind.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        self.init(
            kind: kind,
            reason: part.text("reason"),
            evidence: part.text("evidence"),
            since: part.since,
            strikes: try part.strikes(from: 1),
            pause: try part.duration("pause") ?? .zero
        )
    }

    package var json: JSON {
        [
            "kind": .string(kind.rawValue), "reason": .string(reason), "evidence": .string(evidence),
            "since": .double(since), "strikes": .int(strikes), "pause": .double(pause.inSeconds),
        ]
    }
}

extension CardControl.Probation {
    fileprivate init(_ part: Part) throws(MalformedMessage) {
        self.init(since: part.since, strikes: try part.strikes(from: 0))
    }

    package var json: JSON { ["since": .double(since), "strikes": .int(strikes)] }
}
