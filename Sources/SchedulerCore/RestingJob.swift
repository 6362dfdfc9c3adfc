import JobModel

/// A job that waits for its first card, in as few bytes as it takes: what its record holds, without what follows from it.
///
/// A million of them have to fit into a small machine. Everything else that ``Job`` says of such a job is either as it was
/// at first, or follows from the task.
struct RestingJob: Sendable {
    private let bytes: [UInt8]

    /// In `bytes`, the first of which says which of the parts are there.
    private struct Parts: OptionSet {
        let rawValue: UInt8

        static let maxWait = Parts(rawValue: 1)
        static let waitDeadline = Parts(rawValue: 2)
        static let shortDigest = Parts(rawValue: 4)
        /// The job names things that a cache may hold.
        static let reads = Parts(rawValue: 8)
    }

    private static let digestPrefix = "sha256:"

    /// Nil when there is more to say of the job than this can hold.
    init?(_ job: Job) {
        let record = job.record
        guard job.isUntouched, record.isUntried, record.extra.isEmpty, record.limits.fence == nil else { return nil }
        var parts: Parts = []
        if record.limits.maxWait != nil { parts.insert(.maxWait) }
        if job.waitDeadline != nil { parts.insert(.waitDeadline) }
        if !job.cacheKeys.isEmpty { parts.insert(.reads) }
        if record.digest.hasPrefix(Self.digestPrefix) { parts.insert(.shortDigest) }
        var writer = PackedWriter(capacity: 128 + record.submission.count)
        writer.byte(parts.rawValue)
        writer.text(record.id.text)
        writer.number(job.sequence)
        writer.number(record.order)
        writer.text(record.op.text)
        writer.text(record.digest.dropFirst(parts.contains(.shortDigest) ? Self.digestPrefix.count : 0))
        writer.number(UInt64(bitPattern: Int64(record.limits.maxRetries)))
        for duration in [record.limits.timeout, record.limits.retryBackoff, record.limits.maxWait ?? .zero] {
            guard Duration.nanoseconds(duration.wholeNanoseconds) == duration else { return nil }
            writer.number(UInt64(bitPattern: duration.wholeNanoseconds))
        }
        writer.fixed(record.times.submitted.bitPattern)
        writer.fixed(record.times.updated.bitPattern)
        if let deadline = job.waitDeadline { writer.fixed(UInt64(bitPattern: deadline.nanoseconds)) }
        writer.rest(record.submission)
        bytes = writer.bytes
    }

    /// The job as it was.
    var job: Job? {
        var reader = PackedReader(bytes)
        let parts = Parts(rawValue: reader.byte())
        guard let id = JobID(reader.text()) else { return nil }
        let sequence = reader.number()
        let order = reader.number()
        guard let op = OperationID(reader.text()) else { return nil }
        let digest = (parts.contains(.shortDigest) ? Self.digestPrefix : "") + reader.text()
        let maxRetries = Int(Int64(bitPattern: reader.number()))
        let durations = (0..<3).map { _ in Duration.nanoseconds(Int64(bitPattern: reader.number())) }
        let times = JobTimes(
            submitted: Double(bitPattern: reader.fixed()),
            updated: Double(bitPattern: reader.fixed())
        )
        let deadline =
            parts.contains(.waitDeadline) ? Timestamp(nanoseconds: Int64(bitPattern: reader.fixed())) : nil
        let record = JobRecord(
            untried: id,
            submission: reader.rest(),
            digest: digest,
            order: order,
            limits: JobLimits(
                timeout: durations[0],
                maxRetries: maxRetries,
                retryBackoff: durations[1],
                maxWait: parts.contains(.maxWait) ? durations[2] : nil
            ),
            op: op,
            times: times
        )
        do {
            let revision = RecordRevision(record: record, sequence: sequence, storedAt: Timestamp(nanoseconds: 0))
            var job = Job(revision, task: try record.task())
            job.waitDeadline = deadline
            job.isQueued = true
            return job
        } catch {
            // It was read before it was packed.
            return nil
        }
    }

    // MARK: what is asked for without need of the whole job

    /// It names things that a cache may hold.
    var reads: Bool { Parts(rawValue: bytes[0]).contains(.reads) }

    /// Where its record stands.
    var sequence: UInt64 {
        var reader = PackedReader(bytes)
        _ = reader.byte()
        reader.skipText()
        return reader.number()
    }

    var order: UInt64 {
        var reader = PackedReader(bytes)
        _ = reader.byte()
        reader.skipText()
        _ = reader.number()
        return reader.number()
    }

    /// When its submission was stored, seconds since 1970.
    var submitted: Double {
        var reader = PackedReader(bytes)
        _ = reader.byte()
        reader.skipText()
        for _ in 0..<2 { _ = reader.number() }
        for _ in 0..<2 { reader.skipText() }
        for _ in 0..<4 { _ = reader.number() }
        return Double(bitPattern: reader.fixed())
    }

    func isNamed(_ id: JobID) -> Bool {
        var reader = PackedReader(bytes)
        _ = reader.byte()
        return reader.nextText(is: id.text)
    }

    var id: JobID? {
        var reader = PackedReader(bytes)
        _ = reader.byte()
        return JobID(reader.text())
    }
}

extension Job {
    /// Nothing has happened to the job but that it waits in the queue.
    fileprivate var isUntouched: Bool {
        isQueued && pending == nil && card == nil && runSequence == nil && retryDue == nil && avoidsUntil == nil
            && holdUntil == nil && untoldLoss == nil && cancel == nil && lossReason == nil && missedHeartbeats == 0
            && !resultSeen
            && placement.avoid == nil
    }
}

/// Writes the parts of a packed value one after the other.
private struct PackedWriter {
    private(set) var bytes: [UInt8] = []

    init(capacity: Int) { bytes.reserveCapacity(capacity) }

    mutating func byte(_ value: UInt8) { bytes.append(value) }

    mutating func number(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(rest & 0x7F) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    mutating func fixed(_ value: UInt64) {
        for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(shift))) }
    }

    /// A text; two lower-case hexadecimal digits take one byte. The lowest bit of its length tells which form it has.
    mutating func text(_ text: some StringProtocol) {
        let count = text.utf8.count
        if count > 3, count % 2 == 0, text.utf8.allSatisfy({ Self.digit($0) < 16 }) {
            number(UInt64(count) << 1 | 1)
            var digits = text.utf8.makeIterator()
            while let high = digits.next(), let low = digits.next() {
                bytes.append(Self.digit(high) << 4 | Self.digit(low))
            }
        } else {
            number(UInt64(count) << 1)
            bytes.append(contentsOf: text.utf8)
        }
    }

    /// 16 for what is no digit.
    private static func digit(_ byte: UInt8) -> UInt8 {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        default: 16
        }
    }

    /// The last part, of whatever length.
    mutating func rest(_ rest: [UInt8]) { bytes.append(contentsOf: rest) }
}

/// Reads what ``PackedWriter`` wrote, in the same order.
private struct PackedReader {
    private let bytes: [UInt8]
    private var next = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func byte() -> UInt8 {
        next += 1
        return bytes[next - 1]
    }

    mutating func number() -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let part = byte()
            value |= UInt64(part & 0x7F) << shift
            if part < 0x80 { return value }
            shift += 7
        }
    }

    mutating func fixed() -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(byte()) << UInt64(8 * $1) }
    }

    mutating func text() -> String {
        let (length, isHexadecimal) = form()
        guard isHexadecimal else {
            next += length
            return String(decoding: bytes[(next - length)..<next], as: UTF8.self)
        }
        let digits = Array("0123456789abcdef".utf8)
        let packed = bytes[next..<(next + length / 2)]
        next += length / 2
        return String(unsafeUninitializedCapacity: length) { text in
            for (index, byte) in packed.enumerated() {
                text[2 * index] = digits[Int(byte >> 4)]
                text[2 * index + 1] = digits[Int(byte & 15)]
            }
            return length
        }
    }

    private mutating func form() -> (length: Int, isHexadecimal: Bool) {
        let form = number()
        return (Int(form >> 1), form & 1 == 1)
    }

    mutating func skipText() {
        let (length, isHexadecimal) = form()
        next += isHexadecimal ? length / 2 : length
    }

    mutating func nextText(is text: String) -> Bool {
        let (length, isHexadecimal) = form()
        guard length == text.utf8.count else { return false }
        guard !isHexadecimal else {
            var reader = self
            reader.next = 1
            return reader.text() == text
        }
        return bytes[next..<(next + length)].elementsEqual(text.utf8)
    }

    mutating func rest() -> [UInt8] {
        defer { next = bytes.count }
        return Array(bytes[next...])
    }
}
