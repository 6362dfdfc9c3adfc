import WireJSON

/// A worker's sign of life on `gpu.worker.heartbeat`.
package struct Heartbeat: Sendable, Equatable {
    package var gpu: GPUID
    package var incarnation: Incarnation
    /// Goes up by one with each heartbeat of an incarnation: heartbeats rank by it, never by time.
    package var counter: UInt64
    /// Jobs that may run at once.
    package var slots: Int
    /// The attempts that the worker has claimed and not yet finished, with their jobs.
    package var running: [RunningAttempt]
    /// The worker takes no further attempts: it is about to stop.
    package var isDraining: Bool
    /// The worker can end a job that is to be fenced when it is cut off itself.
    package var canFence: Bool
    /// Seconds since 1970 by the worker's clock: for people.
    package var time: Double

    package struct RunningAttempt: Sendable, Equatable {
        package var job: JobID
        package var attempt: AttemptID

        package init(job: JobID, attempt: AttemptID) {
            self.job = job
            self.attempt = attempt
        }
    }

    package init(
        gpu: GPUID,
        incarnation: Incarnation,
        counter: UInt64,
        slots: Int,
        running: [RunningAttempt],
        isDraining: Bool,
        canFence: Bool = false,
        time: Double
    ) {
        self.gpu = gpu
        self.incarnation = incarnation
        self.counter = counter
        self.slots = slots
        self.running = running
        self.isDraining = isDraining
        self.canFence = canFence
        self.time = time
    }

    package func encoded() -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.field("gpu_id", gpu.json)
        writer.field("incarnation", incarnation.text)
        writer.field("counter", counter)
        writer.field("slots", slots)
        for (key, texts) in [("running", running.map(\.job.text)), ("attempts", running.map(\.attempt.text))] {
            writer.key(key)
            writer.beginArray()
            for text in texts { writer.string(text) }
            writer.endArray()
        }
        if isDraining { writer.field("draining", true) }
        if canFence { writer.field("fence", true) }
        writer.field("ts", time)
        writer.endObject()
        return writer.bytes
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let fields = try WorkerFields(parsing: bytes, as: "heartbeat")
        guard let counter = fields.json["counter"]?.unsignedValue else { throw fields.missing("counter") }
        guard let slots = fields.json["slots"]?.intValue, (1...1024).contains(slots) else {
            throw fields.missing("slots (1 to 1024)")
        }
        let jobs = (fields.json["running"]?.arrayValue ?? []).compactMap { $0.stringValue.flatMap { JobID($0) } }
        let attempts = (fields.json["attempts"]?.arrayValue ?? []).compactMap {
            $0.stringValue.flatMap { AttemptID($0) }
        }
        guard jobs.count == attempts.count else { throw fields.missing("attempts, one for each of running") }
        self.init(
            gpu: fields.gpu,
            incarnation: fields.incarnation,
            counter: counter,
            slots: Int(slots),
            running: zip(jobs, attempts).map { RunningAttempt(job: $0, attempt: $1) },
            isDraining: fields.json["draining"]?.boolValue ?? false,
            canFence: fields.json["fence"]?.boolValue ?? false,
            time: fields.json["ts"]?.doubleValue ?? 0
        )
    }
}

/// The leader's answer to a heartbeat: it counts the worker as alive from the moment it received it.
///
/// The stream of events answers the same message with its PubAck, which is none.
package struct HeartbeatAnswer: Sendable, Equatable {
    /// The heartbeat that is answered.
    package var counter: UInt64

    package init(counter: UInt64) { self.counter = counter }

    /// What the core replies.
    package var json: JSON { ["ok": true, "counter": .int(counter)] }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let body: JSON
        do {
            body = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("answer to a heartbeat", error.description)
        }
        guard body["ok"]?.boolValue == true, let counter = body["counter"]?.unsignedValue else {
            throw MalformedMessage("answer to a heartbeat", "ok or counter is missing")
        }
        self.init(counter: counter)
    }
}

/// What the scheduler reads from `gpu.worker.metrics`; the rest of that message is for people and dashboards.
///
/// What could not be read is nil, never 0.
package struct CardReading: Sendable, Equatable {
    package var gpu: GPUID
    package var incarnation: Incarnation
    /// 0 to 100.
    package var busyPercent: Double?
    /// Degrees Celsius.
    package var temperature: Double?
    /// The temperature from which the worker gives the card no further job, in degrees Celsius.
    package var temperatureLimit: Double?
    /// The card's address on the PCI bus.
    package var pci: String?
    /// The card's name, for people.
    package var model: String?
    /// Watts.
    package var power: Double?
    package var powerCap: Double?
    package var vramUsedBytes: Double?
    package var vramTotalBytes: Double?
    /// Why the worker takes no new job now; nil when it does.
    package var hold: CardHold?
    package var health: [Sign]

    /// A sign of sickness that the worker has seen.
    package struct Sign: Sendable, Equatable {
        /// A word: "lost", "xid", ….
        package var reason: String
        /// What was seen, for a person.
        package var evidence: String
        package var severity: Severity

        package enum Severity: String, Sendable {
            /// To be told, nothing else.
            case notice
            /// The card goes on, watched.
            case probation
            /// The card must not be used until it is probed.
            case quarantine
        }

        package init(reason: String, evidence: String, severity: Severity) {
            self.reason = reason
            self.evidence = evidence
            self.severity = severity
        }
    }

    package init(
        gpu: GPUID,
        incarnation: Incarnation,
        busyPercent: Double?,
        temperature: Double?,
        hold: CardHold? = nil,
        health: [Sign] = []
    ) {
        self.gpu = gpu
        self.incarnation = incarnation
        self.busyPercent = busyPercent
        self.temperature = temperature
        self.hold = hold
        self.health = health
    }

    /// Signs that are read from one message; a card has a handful at most.
    private static let maximumSigns = 16

    /// Reads a metrics message; a value outside what its sensor can say counts as not read.
    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let fields = try WorkerFields(parsing: bytes, as: "metrics message")
        func value(_ key: String, in range: ClosedRange<Double>) -> Double? {
            fields.json[key]?.doubleValue.flatMap { range.contains($0) ? $0 : nil }
        }
        self.init(
            gpu: fields.gpu,
            incarnation: fields.incarnation,
            busyPercent: value("gpu_busy_percent", in: 0...100),
            temperature: value("temp_c", in: 1...149),
            hold: fields.json["hold"].flatMap { CardHold($0) },
            health: (fields.json["health"]?.arrayValue ?? []).prefix(Self.maximumSigns).compactMap { Sign($0) }
        )
        temperatureLimit = value("temp_limit_c", in: 1...149)
        pci = fields.json["pci"]?.stringValue
        model = fields.json["card"]?.stringValue
        power = value("power_w", in: 0...10_000)
        powerCap = value("power_cap_w", in: 0...10_000)
        vramUsedBytes = value("vram_used_bytes", in: 0...1e15)
        vramTotalBytes = value("vram_total_bytes", in: 0...1e15)
    }
}

extension CardReading.Sign {
    /// Nil for what is no sign. One of a severity that is not known, from a newer worker, is told and nothing else.
    fileprivate init?(_ json: JSON) {
        guard let reason = json["reason"]?.stringValue else { return nil }
        self.init(
            reason: reason,
            evidence: json["evidence"]?.stringValue ?? "",
            severity: json["severity"]?.stringValue.flatMap(Severity.init(rawValue:)) ?? .notice
        )
    }

    package var json: JSON {
        ["reason": .string(reason), "evidence": .string(evidence), "severity": .string(severity.rawValue)]
    }
}

/// A worker says on `gpu.worker.up` that it is ready, or on `gpu.worker.down` that it ends in order.
package struct WorkerNotice: Sendable, Equatable {
    package var gpu: GPUID
    package var incarnation: Incarnation

    package init(gpu: GPUID, incarnation: Incarnation) {
        self.gpu = gpu
        self.incarnation = incarnation
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let fields = try WorkerFields(parsing: bytes, as: "worker notice")
        self.init(gpu: fields.gpu, incarnation: fields.incarnation)
    }
}

/// The two fields that every message of a worker has.
struct WorkerFields {
    let json: JSON
    let gpu: GPUID
    let incarnation: Incarnation
    private let expected: String

    init(parsing bytes: [UInt8], as expected: String) throws(MalformedMessage) {
        self.expected = expected
        do {
            json = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage(expected, error.description)
        }
        try FormatVersion.check(json["v"], in: expected)
        guard let gpu = json["gpu_id"].flatMap({ GPUID($0) }) else {
            throw MalformedMessage(expected, "gpu_id is missing or not a card's id")
        }
        guard let incarnation = json["incarnation"]?.stringValue.flatMap({ Incarnation($0) }) else {
            throw MalformedMessage(expected, "incarnation is missing or not a token")
        }
        self.gpu = gpu
        self.incarnation = incarnation
    }

    func missing(_ what: String) -> MalformedMessage { MalformedMessage(expected, "it lacks \(what)") }
}
