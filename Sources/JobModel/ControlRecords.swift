import WireJSON

/// The leader's lease, stored at `gpu.ctl.leader`. It holds a duration, not a time: no two clocks are compared.
package struct LeaderLease: Sendable, Equatable {
    package var holder: Incarnation
    /// The host and process of the holder, for people.
    package var host: String
    package var processID: Int
    /// A standby may take over when the record has not changed for this long on its own clock.
    package var duration: Duration
    /// The holder gave the lease up in order; anybody may take it at once.
    package var isReleased: Bool
    package var op: OperationID

    package init(
        holder: Incarnation,
        host: String,
        processID: Int,
        duration: Duration,
        isReleased: Bool,
        op: OperationID
    ) {
        self.holder = holder
        self.host = host
        self.processID = processID
        self.duration = duration
        self.isReleased = isReleased
        self.op = op
    }

    package func encoded() -> [UInt8] {
        JSON.object(
            JSONObject([
                ("v", .int(FormatVersion.current)), ("holder", .string(holder.text)), ("host", .string(host)),
                ("pid", .int(processID)),
                ("duration", .double(duration.inSeconds)), ("released", .bool(isReleased)), ("op", .string(op.text)),
            ])
        ).encoded()
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let control = try ControlFields(parsing: bytes, as: "leader lease")
        guard let duration = control.json["duration"]?.doubleValue, (0.1...3600).contains(duration) else {
            throw MalformedMessage("leader lease", "duration must be 0.1 to 3600 seconds")
        }
        self.init(
            holder: control.incarnation("holder"),
            host: control.json["host"]?.stringValue ?? "",
            processID: control.processID,
            duration: .inSeconds(duration),
            isReleased: control.json["released"]?.boolValue ?? false,
            op: control.op
        )
    }
}

/// Who owns a card, stored at `gpu.ctl.worker-<gpu>`.
package struct WorkerRegistration: Sendable, Equatable {
    package var gpu: GPUID
    package var incarnation: Incarnation
    package var host: String
    /// The kernel's boot id of that host.
    package var bootID: String
    package var processID: Int
    /// The worker ended in order and left no process behind.
    package var isReleased: Bool
    /// What `gpu.worker.up` says of the card, so that it can be read when nobody runs.
    package var facts: JSONObject
    package var op: OperationID

    package init(
        gpu: GPUID,
        incarnation: Incarnation,
        host: String,
        bootID: String,
        processID: Int,
        isReleased: Bool,
        facts: JSONObject = JSONObject(),
        op: OperationID
    ) {
        self.gpu = gpu
        self.incarnation = incarnation
        self.host = host
        self.bootID = bootID
        self.processID = processID
        self.isReleased = isReleased
        self.facts = facts
        self.op = op
    }

    package func encoded() -> [UInt8] {
        var object = JSONObject([
            ("v", .int(FormatVersion.current)), ("gpu_id", gpu.json), ("incarnation", .string(incarnation.text)),
            ("host", .string(host)), ("boot_id", .string(bootID)), ("pid", .int(processID)),
            ("released", .bool(isReleased)), ("op", .string(op.text)),
        ])
        if !facts.isEmpty { object["facts"] = .object(facts) }
        return JSON.object(object).encoded()
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let control = try ControlFields(parsing: bytes, as: "worker registration")
        guard let gpu = control.json["gpu_id"].flatMap({ GPUID($0) }) else {
            throw MalformedMessage("worker registration", "gpu_id is missing or not a card's id")
        }
        self.init(
            gpu: gpu,
            incarnation: control.incarnation("incarnation"),
            host: control.json["host"]?.stringValue ?? "",
            bootID: control.json["boot_id"]?.stringValue ?? "",
            processID: control.processID,
            isReleased: control.json["released"]?.boolValue ?? false,
            facts: control.json["facts"]?.objectValue ?? JSONObject(),
            op: control.op
        )
    }
}

/// What every record of ORG_CTL that is marked with its write has in common.
struct ControlFields {
    let json: JSON
    let op: OperationID
    private let expected: String

    init(parsing bytes: [UInt8], as expected: String) throws(MalformedMessage) {
        self.expected = expected
        do {
            json = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage(expected, error.description)
        }
        try FormatVersion.check(json["v"], in: expected)
        guard let op = json["op"]?.stringValue.flatMap({ OperationID($0) }) else {
            throw MalformedMessage(expected, "op is missing or not a token")
        }
        self.op = op
        for key in ["holder", "incarnation"] {
            guard let value = json[key] else { continue }
            guard let text = value.stringValue, Incarnation(text) != nil else {
                throw MalformedMessage(expected, "\(key) is not a token")
            }
        }
    }

    var processID: Int { json["pid"]?.intValue.flatMap { Int(exactly: $0) } ?? 0 }

    /// An incarnation that `init` has checked if it is there; a missing one is a life that nobody leads.
    func incarnation(_ key: String) -> Incarnation {
        json[key]?.stringValue.flatMap { Incarnation($0) } ?? .none
    }
}

extension Incarnation {
    /// Nobody: never made by a process.
    package static let none = Incarnation(placeholder: "none")
}

/// How far the leaders are with the results, stored at `gpu.ctl.results`.
package struct ResultsPlace: Sendable, Equatable {
    /// Every terminal record up to this sequence of ORG_JOBS has its result event.
    package var through: UInt64

    package init(through: UInt64) { self.through = through }

    package func encoded() -> [UInt8] {
        JSON.object(["v": .int(FormatVersion.current), "through": .int(through)]).encoded()
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let json: JSON
        do {
            json = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("place of the results", error.description)
        }
        try FormatVersion.check(json["v"], in: "place of the results")
        guard let through = json["through"]?.unsignedValue else {
            throw MalformedMessage("place of the results", "through is missing")
        }
        self.init(through: through)
    }
}
