/// The compute libraries that are installed, as far as one can tell without loading them.
package struct InstalledRuntimes: Sendable {
    /// The libraries that OpenCL's loader would load: names from the files in `/etc/OpenCL/vendors`.
    private let openCL: [String]
    /// The names of Vulkan's driver manifests.
    private let vulkan: [String]
    private let hasCUDA: Bool

    package init(_ paths: SystemPaths = .machine) {
        let vendors = "\(paths.root)/etc/OpenCL/vendors"
        openCL = (SysfsFiles.names(in: vendors) ?? []).filter { $0.hasSuffix(".icd") }
            .compactMap { SysfsFiles.line("\(vendors)/\($0)") }
        vulkan = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"]
            .flatMap { SysfsFiles.names(in: paths.root + $0) ?? [] }
        hasCUDA = Self.linkerKnows("libcuda.so.1", paths)
    }

    /// Whether OpenCL can run on the processor (POCL).
    package var hasProcessorOpenCL: Bool { offersOpenCL(["pocl"]) }

    /// What works on a card with these drivers and nodes.
    func available(
        for vendor: CardVendor,
        driver: String?,
        hasRenderNode: Bool,
        hasKFDNode: Bool,
        hasNVML: Bool
    ) -> [Card.Runtime] {
        var runtimes: [Card.Runtime] = []
        switch vendor {
        case .nvidia:
            // nouveau has a render node, and offers Mesa's drivers instead of NVIDIA's.
            guard driver == "nvidia", hasNVML else { return [] }
            if hasCUDA { runtimes.append(.cuda) }
            if offersOpenCL(["nvidia"]) { runtimes.append(.opencl) }
            if offersVulkan("nvidia") { runtimes.append(.vulkan) }
        case .amd:
            guard hasRenderNode else { return [] }
            if hasKFDNode { runtimes.append(.rocm) }
            if offersOpenCL(["rusticl"]) || (hasKFDNode && offersOpenCL(["amdocl"])) { runtimes.append(.opencl) }
            if offersVulkan("radeon") || offersVulkan("amd") { runtimes.append(.vulkan) }
        case .intel:
            guard hasRenderNode else { return [] }
            if offersOpenCL(["rusticl", "igdrcl", "intel"]) { runtimes.append(.opencl) }
            if offersVulkan("intel") { runtimes.append(.vulkan) }
        }
        return runtimes
    }

    private func offersOpenCL(_ words: [String]) -> Bool {
        openCL.contains { library in words.contains { library.lowercased().firstRange(of: $0) != nil } }
    }

    private func offersVulkan(_ prefix: String) -> Bool { vulkan.contains { $0.hasPrefix(prefix) } }

    /// Whether the dynamic linker would find a library. Loading it to see would run the vendor's code here.
    private static func linkerKnows(_ library: String, _ paths: SystemPaths) -> Bool {
        let cache = SysfsFiles.contents("\(paths.root)/etc/ld.so.cache", limit: 16 << 20) ?? []
        return cache.firstRange(of: Array(library.utf8) + [0]) != nil
    }
}
