import JobModel
import WireJSON

/// What the caches of the cards hold, and what that is worth to a job.
extension SchedulerCore {
    mutating func note(_ report: CacheReport) {
        guard cards[report.gpu]?.owner == report.incarnation else { return }
        if details[report.gpu]?.cache?.holds != report.holds { noteHeld(Set(report.holds), in: report.gpu) }
        details[report.gpu]?.cache = report
    }

    /// What an earlier life of the worker told may have been of another cache.
    mutating func forgetCache(of gpu: GPUID) {
        details[gpu]?.cache = nil
        noteHeld([], in: gpu)
    }

    private mutating func noteHeld(_ keys: Set<CacheKey>, in gpu: GPUID) {
        guard let before = details[gpu]?.cacheHolds, before != keys else { return }
        details[gpu]?.cacheHolds = keys
        for key in keys.subtracting(before) { cacheHolders[key, default: []].insert(gpu) }
        for key in before.subtracting(keys) {
            cacheHolders[key]?.remove(gpu)
            if cacheHolders[key]?.isEmpty == true { cacheHolders[key] = nil }
        }
    }

    /// What is taken off a card's score for a job that reads `keys`: by the part of them that its cache has.
    func cacheBonus(of gpu: GPUID, for keys: [CacheKey]) -> Double {
        guard !keys.isEmpty, let holds = details[gpu]?.cacheHolds, !holds.isEmpty else { return 0 }
        return policy.cacheBonus * Double(keys.count(where: holds.contains)) / Double(keys.count)
    }
}

extension CacheReport {
    /// The report for a person who looks at a card: without the names.
    var summary: JSON {
        var object: JSONObject = ["mode": .string(mode.rawValue)]
        object["used_bytes"] = usedBytes.map { .int(Int(clamping: $0)) }
        object["size_bytes"] = sizeBytes.map { .int(Int(clamping: $0)) }
        object["sync"] = sync.map { .string($0) }
        object["note"] = note.map { .string($0) }
        object["holds"] = .int(holds.count)
        return .object(object)
    }
}
