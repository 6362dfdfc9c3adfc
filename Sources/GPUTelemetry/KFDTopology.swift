/// The compute nodes that AMD's KFD driver offers: what ROCm can use.
struct KFDTopology: Sendable {
    /// The render minors of the GPU nodes in their order. ROCR_VISIBLE_DEVICES counts by it. Nodes that the device
    /// cgroup hides from this process are left out, as ROCm leaves them out in its jobs.
    let renderMinors: [Int]

    init(_ paths: SystemPaths) {
        let nodes = "\(paths.sys)/class/kfd/kfd/topology/nodes"
        guard SysfsFiles.exists("\(paths.dev)/kfd") else {
            renderMinors = []
            return
        }
        let numbers = (SysfsFiles.names(in: nodes) ?? []).compactMap { Int($0) }.sorted()
        renderMinors = numbers.compactMap { number in
            guard let bytes = SysfsFiles.contents("\(nodes)/\(number)/properties", limit: 16384) else { return nil }
            for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
                let words = line.split(separator: " ")
                // A processor's node has minor 0.
                if words.count == 2, words[0] == "drm_render_minor", let minor = Int(words[1]), minor > 0 {
                    return minor
                }
            }
            return nil
        }
    }

    func rank(ofRenderMinor minor: Int?) -> Int? { minor.flatMap { renderMinors.firstIndex(of: $0) } }
}
