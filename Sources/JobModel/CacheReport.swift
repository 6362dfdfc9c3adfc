import WireJSON

/// What a worker tells of its card's cache on `gpu.cache.heartbeat`.
package struct CacheReport: Sendable, Equatable {
    package var gpu: GPUID
    package var incarnation: Incarnation
    package var mode: Mode
    /// Where it is on the worker's machine.
    package var path: String
    /// What it may take and what it takes, in bytes; nil when that is not known. Of an overlay: its memory.
    package var sizeBytes: UInt64?
    package var usedBytes: UInt64?
    /// What the last save came to: "ok", or why it failed; nil when none is known.
    package var sync: String?
    /// What an operator should know: `cache_full`, `no_space`, `sync_failed` and details; why it is no overlay.
    package var note: String?
    /// What lies in it, of those names that a job may ask for; sorted, ``holdsLimit`` at most.
    package var holds: [CacheKey]
    /// There is more than `holds` tells.
    package var isCut: Bool
    /// Seconds since 1970 by the worker's clock: for people.
    package var time: Double

    package enum Mode: String, Sendable {
        /// Memory over a directory on disk.
        case overlay
        /// A directory on disk.
        case plain
        /// It is not there.
        case missing
    }

    /// Names that one report holds at most.
    package static let holdsLimit = 256

    package init(
        gpu: GPUID,
        incarnation: Incarnation,
        mode: Mode,
        path: String,
        sizeBytes: UInt64? = nil,
        usedBytes: UInt64? = nil,
        sync: String? = nil,
        note: String? = nil,
        holds: [CacheKey],
        isCut: Bool = false,
        time: Double = 0
    ) {
        self.gpu = gpu
        self.incarnation = incarnation
        self.mode = mode
        self.path = path
        self.sizeBytes = sizeBytes
        self.usedBytes = usedBytes
        self.sync = sync
        self.note = note
        self.holds = holds
        self.isCut = isCut
        self.time = time
    }

    package func encoded() -> [UInt8] {
        var object: JSONObject = [
            "gpu_id": gpu.json, "incarnation": .string(incarnation.text), "mode": .string(mode.rawValue),
            "path": .string(path),
        ]
        object["size_bytes"] = sizeBytes.map { .int(Int(clamping: $0)) }
        object["used_bytes"] = usedBytes.map { .int(Int(clamping: $0)) }
        object["sync"] = sync.map { .string($0) }
        object["note"] = note.map { .string($0) }
        object["holds"] = .array(holds.map { .string($0.path) })
        if isCut { object["holds_cut"] = true }
        object["ts"] = .double(time)
        return JSON.object(object).encoded()
    }

    /// Reads a report; a name that cannot be a key, or one too many, is left out.
    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let fields = try WorkerFields(parsing: bytes, as: "cache heartbeat")
        let json = fields.json
        self.init(
            gpu: fields.gpu,
            incarnation: fields.incarnation,
            mode: json["mode"]?.stringValue.flatMap(Mode.init(rawValue:)) ?? .missing,
            path: json["path"]?.stringValue ?? "",
            sizeBytes: json["size_bytes"]?.unsignedValue,
            usedBytes: json["used_bytes"]?.unsignedValue,
            sync: json["sync"]?.stringValue,
            note: json["note"]?.stringValue,
            holds: (json["holds"]?.arrayValue ?? []).prefix(Self.holdsLimit).compactMap {
                $0.stringValue.flatMap { CacheKey($0) }
            },
            isCut: json["holds_cut"]?.boolValue ?? false,
            time: json["ts"]?.doubleValue ?? 0
        )
    }
}
